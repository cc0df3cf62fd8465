// Products of AVX2: up to three shifts against eight slices, in 16 bits with sums in 32.
#pragma once

#include <immintrin.h>

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

struct Products {};

// The sums of eight slices, from registers that hold two for each.
inline __m256i folded(__m256i first_four, __m256i last_four) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(first_four, last_four), 0xD8);
}

inline __m256i four_slices(const std::int8_t* numbers) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers)));
}

inline __m256i one_row(const Element* row) {
    std::int64_t four;
    std::memcpy(&four, row, 8);
    return _mm256_set1_epi64x(four);
}

template <int SHIFTS>
inline void best_of_shifts(const Element* rows, std::int64_t length, std::int32_t first_shift, const SliceBlock& block,
                           int vector, int eight, std::int32_t* best) {
    __m256i even[SHIFTS][2], odd[SHIFTS][2];
    for (auto& sums : even) sums[0] = sums[1] = _mm256_setzero_si256();
    for (auto& sums : odd) sums[0] = sums[1] = _mm256_setzero_si256();
    const std::int8_t *real = block.part(vector, 0) + eight * 32, *imaginary = block.part(vector, 1) + eight * 32;
    const std::int64_t quads = (block.coefficients + 3) / 4;
    for (std::int64_t quad = 0; quad < quads; ++quad) {
        const __m256i real0 = four_slices(real + quad * 64), real1 = four_slices(real + quad * 64 + 16);
        for (int shift = 0; shift < SHIFTS; ++shift) {
            const __m256i row = one_row(rows + shift * length + 4 * quad);
            even[shift][0] = _mm256_add_epi32(even[shift][0], _mm256_madd_epi16(row, real0));
            even[shift][1] = _mm256_add_epi32(even[shift][1], _mm256_madd_epi16(row, real1));
        }
        const __m256i odd0 = four_slices(imaginary + quad * 64), odd1 = four_slices(imaginary + quad * 64 + 16);
        for (int shift = 0; shift < SHIFTS; ++shift) {
            const __m256i row = one_row(rows + shift * length + block.padded + 4 * quad);
            odd[shift][0] = _mm256_add_epi32(odd[shift][0], _mm256_madd_epi16(row, odd0));
            odd[shift][1] = _mm256_add_epi32(odd[shift][1], _mm256_madd_epi16(row, odd1));
        }
    }
    auto* plus_at = reinterpret_cast<__m256i*>(best + vector * LANES + eight * 8);
    auto* minus_at = reinterpret_cast<__m256i*>(best + BLOCK + vector * LANES + eight * 8);
    __m256i plus = _mm256_loadu_si256(plus_at), minus = _mm256_loadu_si256(minus_at);
    const __m256i low_bits = _mm256_set1_epi32(block.shift_bits);
    for (int shift = 0; shift < SHIFTS; ++shift) {
        const __m256i number = _mm256_set1_epi32(first_shift + shift);
        const __m256i evens = folded(even[shift][0], even[shift][1]), odds = folded(odd[shift][0], odd[shift][1]);
        const __m256i sum = _mm256_andnot_si256(low_bits, _mm256_add_epi32(evens, odds));
        const __m256i difference = _mm256_andnot_si256(low_bits, _mm256_sub_epi32(evens, odds));
        plus = _mm256_max_epi32(plus, _mm256_or_si256(sum, number));
        minus = _mm256_max_epi32(minus, _mm256_or_si256(difference, number));
    }
    _mm256_storeu_si256(plus_at, plus);
    _mm256_storeu_si256(minus_at, minus);
}

// `best` (images, 2, BLOCK) is raised to the maxima over the shifts of each image.
inline void best_of_block(Products&, const Element* rows, std::int64_t images, std::int64_t shifts,
                          const SliceBlock& block, std::int32_t* best) {
    const std::int64_t length = row_length(block.padded), tiles = (shifts + 2) / 3;
    for (std::int64_t image = 0; image < images; ++image, best += 2 * BLOCK) {
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            const std::int64_t first = tile * shifts / tiles, count = (tile + 1) * shifts / tiles - first;
            const Element* from = rows + (image * shifts + first) * length;
            const auto number = static_cast<std::int32_t>(first);
            for (int vector = 0; vector < 2; ++vector)
                for (int eight = 0; eight < 2; ++eight) switch (count) {
                        case 3: best_of_shifts<3>(from, length, number, block, vector, eight, best); break;
                        case 2: best_of_shifts<2>(from, length, number, block, vector, eight, best); break;
                        default: best_of_shifts<1>(from, length, number, block, vector, eight, best);
                    }
        }
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
