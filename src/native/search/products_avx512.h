// Products of AVX-512 VNNI: up to six shifts against thirty-two slices, even and odd sums in 24 registers.
#pragma once

#include <immintrin.h>

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

struct Products {};

template <int SHIFTS>
inline void best_of_shifts(const Element* rows, std::int64_t length, std::int32_t first_shift, const SliceBlock& block,
                           std::int32_t* best) {
    __m512i even[SHIFTS][2], odd[SHIFTS][2];
    for (int vector = 0; vector < 2; ++vector)
        for (int shift = 0; shift < SHIFTS; ++shift) {
            even[shift][vector] = _mm512_loadu_si512(block.raised_part(vector, 0));
            odd[shift][vector] = _mm512_loadu_si512(block.raised_part(vector, 1));
        }
    const std::int8_t* slices = block.numbers;
    const std::int64_t to_odd = block.padded * LANES, to_next = 2 * to_odd;
    const std::int64_t quads = (block.coefficients + 3) / 4;
    for (std::int64_t quad = 0; quad < quads; ++quad) {
        const std::int8_t* at = slices + quad * 64;
        const __m512i real0 = _mm512_loadu_si512(at), real1 = _mm512_loadu_si512(at + to_next);
        for (int shift = 0; shift < SHIFTS; ++shift) {
            std::int32_t four;
            std::memcpy(&four, rows + shift * length + 4 * quad, 4);
            const __m512i row = _mm512_set1_epi32(four);
            even[shift][0] = _mm512_dpbusd_epi32(even[shift][0], row, real0);
            even[shift][1] = _mm512_dpbusd_epi32(even[shift][1], row, real1);
        }
        const __m512i odd0 = _mm512_loadu_si512(at + to_odd), odd1 = _mm512_loadu_si512(at + to_odd + to_next);
        for (int shift = 0; shift < SHIFTS; ++shift) {
            std::int32_t four;
            std::memcpy(&four, rows + shift * length + block.padded + 4 * quad, 4);
            const __m512i row = _mm512_set1_epi32(four);
            odd[shift][0] = _mm512_dpbusd_epi32(odd[shift][0], row, odd0);
            odd[shift][1] = _mm512_dpbusd_epi32(odd[shift][1], row, odd1);
        }
    }
    const __m512i high_bits = _mm512_set1_epi32(~block.shift_bits);
    constexpr int and_then_or = 0xEA;
    for (int vector = 0; vector < 2; ++vector) {
        __m512i plus = _mm512_loadu_si512(best + vector * LANES);
        __m512i minus = _mm512_loadu_si512(best + BLOCK + vector * LANES);
        for (int shift = 0; shift < SHIFTS; ++shift) {
            const __m512i number = _mm512_set1_epi32(first_shift + shift);
            const __m512i sum = _mm512_add_epi32(even[shift][vector], odd[shift][vector]);
            const __m512i difference = _mm512_sub_epi32(even[shift][vector], odd[shift][vector]);
            plus = _mm512_max_epi32(plus, _mm512_ternarylogic_epi32(sum, high_bits, number, and_then_or));
            minus = _mm512_max_epi32(minus, _mm512_ternarylogic_epi32(difference, high_bits, number, and_then_or));
        }
        _mm512_storeu_si512(best + vector * LANES, plus);
        _mm512_storeu_si512(best + BLOCK + vector * LANES, minus);
    }
}

// `best` (images, 2, BLOCK) is raised to the maxima over the shifts of each image.
inline void best_of_block(Products&, const Element* rows, std::int64_t images, std::int64_t shifts,
                          const SliceBlock& block, std::int32_t* best) {
    const std::int64_t length = row_length(block.padded), tiles = (shifts + 5) / 6;
    for (std::int64_t image = 0; image < images; ++image, best += 2 * BLOCK) {
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            const std::int64_t first = tile * shifts / tiles, count = (tile + 1) * shifts / tiles - first;
            const Element* from = rows + (image * shifts + first) * length;
            const auto number = static_cast<std::int32_t>(first);
            switch (count) {
                case 6: best_of_shifts<6>(from, length, number, block, best); break;
                case 5: best_of_shifts<5>(from, length, number, block, best); break;
                case 4: best_of_shifts<4>(from, length, number, block, best); break;
                case 3: best_of_shifts<3>(from, length, number, block, best); break;
                case 2: best_of_shifts<2>(from, length, number, block, best); break;
                default: best_of_shifts<1>(from, length, number, block, best);
            }
        }
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
