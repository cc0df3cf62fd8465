// The maximum over shifts of even + odd and of even - odd, for the images of a group against one block of slices.
#pragma once

#include "search/shifted_rows.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// A block of slices; a maximum carries the shift that has it in its low bits, which no coarse score needs.
struct SliceBlock {
    const std::int8_t* numbers;    // (2, 2, padded / 4, 16, 4): see packed.h
    const std::int32_t* raised;    // (2, 2, 16): what rows that are raised by 128 have too much
    std::int64_t coefficients, padded;
    std::int32_t shift_bits;       // as many ones as the number of a shift has bits

    const std::int8_t* part(int vector, int odd) const { return numbers + (2 * vector + odd) * padded * LANES; }
    const std::int32_t* raised_part(int vector, int odd) const { return raised + (2 * vector + odd) * LANES; }
};

constexpr std::int32_t LEAST = -2147483647 - 1;

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS

#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
#include "search/products_avx512.h"
#elif defined(__AVX2__) && !defined(__AVX512VNNI__)
#include "search/products_avx2.h"
#else
#include "search/products_tiles.h"
#endif
