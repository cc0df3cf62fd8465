// What a search is given and what it fills in; kernels/search.py has the same structures.
#pragma once

#include <cstdint>

namespace hoarfrost {

// Slices as 8-bit integers (see search/packed.h), and what is needed to make images match them.
struct PackedSlices {
    std::int64_t slices, coefficients;
    const float* exact;      // (slices, coefficients, 2)
    const float* factor;     // (coefficients): what rows are multiplied and slices divided by
    std::int8_t* numbers;
    std::int32_t* raised;    // (slices / 16, 2, 16)
    float* units;            // (slices): what a unit of a slice's integers stands for
};

// Images against slices; results are sorted by score.
struct SearchProblem {
    const PackedSlices* bank;
    std::int64_t shifts, keep;
    const float* data;       // (images, coefficients, 2): v C X
    const float* power;      // (images, coefficients): v C^2
    const float* norms;      // (images, slices): v C^2 |Y|^2 summed, only as exact as a coarse score needs
    const float* cosines;    // (shifts, coefficients)
    const float* sines;
    std::int64_t* orientation;  // (images, keep)
    std::int64_t* shift;
    float* score;
};

}  // namespace hoarfrost
