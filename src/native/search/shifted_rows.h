// The rows of the product: an image at every shift, as integers of a scale that all its shifts share.
#pragma once

#include <cmath>

#include "search/packed.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// What the products of an instruction set multiply: AVX2 has them for 16 bits, AVX-512 for unsigned with signed bytes.
#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
using Element = std::uint8_t;
constexpr std::int32_t RAISED_BY = 128;
#elif defined(__AVX2__) && !defined(__AVX512VNNI__)
using Element = std::int16_t;
constexpr std::int32_t RAISED_BY = 0;
#else
using Element = std::int8_t;
constexpr std::int32_t RAISED_BY = 0;
#endif

// Elements from one row to the next: real parts, imaginary parts, and a cache line so that rows do not share sets.
inline std::int64_t row_length(std::int64_t padded) { return 2 * padded + 64 / static_cast<std::int64_t>(sizeof(Element)); }

// Write the rows of one image; returns what a unit of them stands for.
//
// `data` are (real, imaginary) pairs, which are multiplied by `factor` first; `scratch` holds 2 `coefficients` numbers.
inline float write_shifted_rows(const float* data, const float* factor, const float* cosines, const float* sines,
                                std::int64_t coefficients, std::int64_t padded, std::int64_t shifts, float* scratch,
                                Element* rows) {
    float *real = scratch, *imaginary = scratch + coefficients;
    float largest = 0.0f;
    for (std::int64_t k = 0; k < coefficients; ++k) {
        real[k] = data[2 * k] * factor[k];
        imaginary[k] = data[2 * k + 1] * factor[k];
        const float power = real[k] * real[k] + imaginary[k] * imaginary[k];
        largest = power > largest ? power : largest;
    }
    largest = std::sqrt(largest);
    const float scale = largest > 0.0f ? LARGEST / largest : 0.0f;
    for (std::int64_t k = 0; k < coefficients; ++k) real[k] *= scale, imaginary[k] *= scale;
    for (std::int64_t shift = 0; shift < shifts; ++shift) {
        const float *cosine = cosines + shift * coefficients, *sine = sines + shift * coefficients;
        Element *even = rows + shift * row_length(padded), *odd = even + padded;
        for (std::int64_t k = 0; k < coefficients; ++k) {
            even[k] = static_cast<Element>(nearest(real[k] * cosine[k] - imaginary[k] * sine[k]) + RAISED_BY);
            odd[k] = static_cast<Element>(nearest(real[k] * sine[k] + imaginary[k] * cosine[k]) + RAISED_BY);
        }
    }
    return largest / LARGEST;
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
