// The best orientations and shifts of images: coarse scores from 8-bit products, the few best again in full.
//
// S = sum of 2 Re< a exp(2 pi i k.t), Y > - p |Y|^2 with a = v C X and p = v C^2. The first term is even + odd at an
// orientation and even - odd at its half-turn, even from the real parts and odd from the imaginary parts.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "search/products.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

constexpr std::int64_t IMAGES_AT_ONCE = 16;
constexpr std::int64_t ROW_BYTES_AT_ONCE = 512 << 10;  // leave room for slices in a cache of a megabyte

struct Candidate {
    float score;
    std::int32_t orientation, shift;
};

// The lower score stands on top of a heap; equal ones are told apart, so that their order is always the same.
inline bool better(const Candidate& one, const Candidate& other) {
    return one.score > other.score || (one.score == other.score && one.orientation < other.orientation);
}

// The few best of many candidates that come one by one.
struct Kept {
    Candidate* heap;
    std::int64_t count = 0;

    void offer(const Candidate& candidate, std::int64_t keep) {
        if (count < keep) {
            heap[count++] = candidate;
            std::push_heap(heap, heap + count, better);
        } else if (better(candidate, heap[0])) {
            std::pop_heap(heap, heap + count, better);
            heap[count - 1] = candidate;
            std::push_heap(heap, heap + count, better);
        }
    }
};

// Offer the coarse scores of an image at the orientations `first_orientation` ... of a block.
void offer_block(const std::int32_t* maxima, const float* units, float unit, const float* norms, std::int64_t count,
                 std::int32_t shift_bits, std::int64_t first_orientation, std::int64_t keep, Kept& kept) {
    float scores[BLOCK];
    for (std::int64_t i = 0; i < count; ++i)
        scores[i] = static_cast<float>(maxima[i] & ~shift_bits) * (unit * units[i]) - norms[i];
    if (kept.count == keep) {
        const float least = kept.heap[0].score;
        bool any = false;
        for (std::int64_t i = 0; i < count; ++i) any |= scores[i] >= least;
        if (!any) return;
    }
    for (std::int64_t i = 0; i < count; ++i)
        kept.offer({scores[i], static_cast<std::int32_t>(first_orientation + i), maxima[i] & shift_bits}, keep);
}

// S of one image, orientation and shift in float32, summed in sixteen strands.
float exact_score(const float* data, const float* power, const float* cosine, const float* sine, const float* slice,
                  float turned, std::int64_t coefficients) {
    float strands[LANES] = {};
    const auto term = [&](std::int64_t k) {
        const float real = slice[2 * k], imaginary = slice[2 * k + 1];
        const float even = (data[2 * k] * cosine[k] - data[2 * k + 1] * sine[k]) * real;
        const float odd = (data[2 * k] * sine[k] + data[2 * k + 1] * cosine[k]) * imaginary;
        return 2.0f * (even + turned * odd) - power[k] * (real * real + imaginary * imaginary);
    };
    std::int64_t k = 0;
    for (; k + LANES <= coefficients; k += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane) strands[lane] += term(k + lane);
    for (; k < coefficients; ++k) strands[k % LANES] += term(k);
    float sum = 0.0f;
    for (const float strand : strands) sum += strand;
    return sum;
}

void score_again(const SearchProblem& problem, std::int64_t image, Kept& kept) {
    const PackedSlices& bank = *problem.bank;
    const std::int64_t m = bank.coefficients;
    for (std::int64_t i = 0; i < kept.count; ++i) {
        Candidate& candidate = kept.heap[i];
        const bool half_turn = candidate.orientation >= bank.slices;
        const std::int64_t slice = candidate.orientation - (half_turn ? bank.slices : 0);
        candidate.score = exact_score(problem.data + image * 2 * m, problem.power + image * m,
                                      problem.cosines + candidate.shift * m, problem.sines + candidate.shift * m,
                                      bank.exact + slice * 2 * m, half_turn ? -1.0f : 1.0f, m);
    }
    std::sort(kept.heap, kept.heap + kept.count, better);
    for (std::int64_t i = 0; i < kept.count; ++i) {
        problem.orientation[image * problem.keep + i] = kept.heap[i].orientation;
        problem.shift[image * problem.keep + i] = kept.heap[i].shift;
        problem.score[image * problem.keep + i] = kept.heap[i].score;
    }
}

}  // namespace

// Turn the slices into integers, each with its own unit.
void pack_slices(const PackedSlices& bank) {
    const std::int64_t m = bank.coefficients, padded = rounded_up(m, DEPTH);
    for (std::int64_t slice = 0; slice < bank.slices; ++slice) {
        const float* exact = bank.exact + slice * 2 * m;
        float largest = 0.0f;
        for (std::int64_t k = 0; k < m; ++k) {
            const float inverse = 1.0f / bank.factor[k];
            largest = std::max(largest, std::max(std::fabs(exact[2 * k]), std::fabs(exact[2 * k + 1])) * inverse);
        }
        const float scale = largest > 0.0f ? LARGEST / largest : 0.0f;
        bank.units[slice] = largest / LARGEST;
        const std::int64_t lane = slice % LANES;
        std::int8_t* to = bank.numbers + slice / LANES * 2 * padded * LANES + 4 * lane;
        std::int32_t sums[2] = {};
        for (std::int64_t k = 0; k < m; ++k)
            for (int odd = 0; odd < 2; ++odd) {
                const std::int32_t number = nearest(exact[2 * k + odd] / bank.factor[k] * scale);
                const auto byte = static_cast<std::int8_t>(number);
                to[odd * padded * LANES + k / 4 * 4 * LANES + k % 4] = byte;
                sums[odd] += byte;
            }
        for (int odd = 0; odd < 2; ++odd) bank.raised[(slice / LANES * 2 + odd) * LANES + lane] = -128 * sums[odd];
    }
}

// Search the images first ... last - 1 of a problem.
void search(const SearchProblem& problem, std::int64_t first, std::int64_t last) {
    const PackedSlices& bank = *problem.bank;
    const std::int64_t m = bank.coefficients, padded = rounded_up(m, DEPTH), shifts = problem.shifts;
    const std::int64_t length = row_length(padded), keep = problem.keep;
    const std::int64_t image_bytes = shifts * length * static_cast<std::int64_t>(sizeof(Element));
    const std::int64_t group = std::clamp<std::int64_t>(ROW_BYTES_AT_ONCE / image_bytes, 1, IMAGES_AT_ONCE);
    std::int32_t shift_bits = 0;
    while (shift_bits < shifts - 1) shift_bits = 2 * shift_bits + 1;

    Buffer<Element> rows(rounded_up(group * shifts, BLOCK) * length);
    Buffer<float> scratch(2 * m);
    Buffer<std::int32_t> best(group * 2 * BLOCK);
    Buffer<Candidate> candidates(group * keep);
    float units[IMAGES_AT_ONCE];
    Products products;

    for (; first < last; first += group) {
        const std::int64_t images = std::min(group, last - first);
        Kept kept[IMAGES_AT_ONCE];
        for (std::int64_t i = 0; i < images; ++i) {
            units[i] = 2.0f * write_shifted_rows(problem.data + (first + i) * 2 * m, bank.factor, problem.cosines,
                                                 problem.sines, m, padded, shifts, scratch.begin(),
                                                 rows.begin() + i * shifts * length);
            kept[i].heap = candidates.begin() + i * keep;
        }
        for (std::int64_t slice = 0; slice < bank.slices; slice += BLOCK) {
            const SliceBlock block{bank.numbers + slice * 2 * padded, bank.raised + slice * 2, m, padded, shift_bits};
            std::fill_n(best.begin(), images * 2 * BLOCK, LEAST);
            best_of_block(products, rows.begin(), images, shifts, block, best.begin());
            const std::int64_t count = std::min(BLOCK, bank.slices - slice);
            for (std::int64_t i = 0; i < images; ++i) {
                const float* norms = problem.norms + (first + i) * bank.slices + slice;
                const std::int32_t* maxima = best.begin() + i * 2 * BLOCK;
                offer_block(maxima, bank.units + slice, units[i], norms, count, shift_bits, slice, keep, kept[i]);
                offer_block(maxima + BLOCK, bank.units + slice, units[i], norms, count, shift_bits,
                            bank.slices + slice, keep, kept[i]);
            }
        }
        for (std::int64_t i = 0; i < images; ++i) score_again(problem, first + i, kept[i]);
    }
}

// One number for the maxima of a small problem of integers: the same for every instruction set that works.
std::int64_t search_checksum() {
    constexpr std::int64_t images = 3, shifts = 21, m = 150, padded = 192;
    Buffer<Element> rows(rounded_up(images * shifts, BLOCK) * row_length(padded));
    Buffer<std::int8_t> numbers(BLOCK * 2 * padded);
    Buffer<std::int32_t> raised(2 * BLOCK), best(images * 2 * BLOCK);
    std::uint32_t state = 1;
    const auto drawn = [&state] {
        state = state * 1664525u + 1013904223u;
        return static_cast<std::int32_t>(state >> 24) % 255 - 127;
    };
    for (std::int64_t row = 0; row < images * shifts; ++row)
        for (std::int64_t odd = 0; odd < 2; ++odd)
            for (std::int64_t k = 0; k < m; ++k)
                rows.begin()[row * row_length(padded) + odd * padded + k] = static_cast<Element>(drawn() + RAISED_BY);
    for (std::int64_t slice = 0; slice < BLOCK; ++slice)
        for (std::int64_t odd = 0; odd < 2; ++odd)
            for (std::int64_t k = 0; k < m; ++k) {
                const std::int32_t number = drawn();
                const std::int64_t part = 2 * (slice / LANES) + odd, lane = slice % LANES;
                numbers.begin()[part * padded * LANES + k / 4 * 4 * LANES + 4 * lane + k % 4] =
                    static_cast<std::int8_t>(number);
                raised.begin()[part * LANES + lane] -= 128 * number;
            }
    std::fill_n(best.begin(), images * 2 * BLOCK, LEAST);
    Products products;
    best_of_block(products, rows.begin(), images, shifts, {numbers.begin(), raised.begin(), m, padded, 31},
                  best.begin());
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < images * 2 * BLOCK; ++i) sum += (2 * i + 1) * best.begin()[i];
    return sum;
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
