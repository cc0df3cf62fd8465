// What every instruction set offers. Each kernel file is compiled once for each, under the namespace of its name.
#pragma once

#include <cstdint>

#include "search/problem.h"

namespace hoarfrost {

// Slices on their way into the sums of a grid.
struct InsertedSlices {
    std::int64_t images, images_a_part, coefficients, limit, centre;
    const std::int32_t* order;  // (coefficient): the band's coefficients by kx, then ky
    const float* frames;        // (image, 2, 3): grid coordinates (x, y, z) of a step along kx and along ky
    const float* values;        // (image, coefficient, 2)
    const float* weights;       // (image, coefficient): weights of the values, or transfer functions with shifts
    const float* shifts;        // (image, 2) in boxes; null for values that are inserted as they are
    float* points;              // (image, coefficient, 3): re, im, weight, arranged
    std::uint64_t* pieces;      // (part, pieces_a_part), sorted by block
    std::int64_t pieces_a_part;
    std::int32_t* offsets;      // (part, blocks + 1) into pieces
};

// Whitened images in a band, and the tables of a density that its slices are read from.
struct SlicedImages {
    std::int64_t images, coefficients, box, padding, centre;
    const float* fields;         // (node, 8): the transform and its three moments
    const float* values;         // (node, 2): the transform alone
    const std::int64_t* k;       // (coefficient, 2)
    const float* vectors;        // (image, coefficient, 2)
    const float* transfer;       // (image, coefficient)
    const float* root_weight;    // (coefficient)
    const double* matrices;      // (image, 2, 2), or null for the identity
};

// Images at the orientations and shifts that they may have, and the sums for every slice.
struct SpreadImages {
    std::int64_t images, candidates, coefficients, slices;
    const std::int64_t* orientation;  // (image, candidate): slices and, beyond them, their half-turns
    const std::int64_t* shift;        // (image, candidate)
    const float* share;               // (image, candidate)
    const float* data;                // (image, coefficient, 2)
    const float* power;               // (image, coefficient)
    const float* cosines;             // (shift, coefficient)
    const float* sines;
    float* values;                    // (slice, coefficient, 2)
    float* weights;                   // (slice, coefficient)
};

// A mixture of windowed Gaussians on a grid of depth * height * width points.
struct WindowedGaussians {
    std::int64_t depth, height, width, isotropic;
    float edge;                 // of the window, in squared deviations
    const std::int64_t* order;  // in which Gaussians are taken
    const float* centres;       // (Gaussian, 3): x, y, z, counted from the first point
    const float* amplitudes;    // (Gaussian)
    const float* precisions;    // (Gaussian, 6): xx, yy, zz, xy, xz, yz; one number where isotropic
    const float* reach;         // (Gaussian, 3): half the sides of the box that holds the window
};

}  // namespace hoarfrost

#define HOARFROST_KERNELS(name)                                                                                 \
    namespace hoarfrost::name {                                                                                 \
    std::int64_t integer_products(std::int64_t rounds);                                                         \
    void insertion_sizes(std::int64_t centre, std::int64_t limit, std::int64_t* sizes);                         \
    void arrange_slices(const InsertedSlices& slices, std::int64_t part);                                       \
    void fill_slab(const InsertedSlices& slices, std::int64_t slab, float* sums);                               \
    void normal_equations(const SlicedImages& batch, const double* rotations, const double* shifts,             \
                          double* curvature, double* slope, double* likelihood);                                \
    void log_likelihood(const SlicedImages& batch, const double* rotations, const double* shifts,               \
                        double* likelihood);                                                                    \
    void refine_poses(const SlicedImages& batch, std::int64_t iterations, double largest_turn,                  \
                      double* rotations, double* shifts, double* likelihood);                                   \
    void read_points(const float* table, std::int64_t channels, std::int64_t centre, const float* points,       \
                     std::int64_t count, float* result);                                                        \
    void pack_slices(const PackedSlices& bank);                                                                 \
    void search(const SearchProblem& problem, std::int64_t first, std::int64_t last);                           \
    std::int64_t search_checksum();                                                                             \
    void normalise_images(float* images, std::int64_t count, std::int64_t box, double radius,                   \
                          std::int64_t invert);                                                                 \
    void pick_coefficients(const float* spectra, std::int64_t count, std::int64_t stride,                       \
                           const std::int32_t* place, const float* factor, std::int64_t coefficients,           \
                           float* result);                                                                      \
    void spread_images(const SpreadImages& spread, std::int64_t first, std::int64_t last);                      \
    void harmonic_rows(const float* cosines, const float* sines, const float* envelope, std::int64_t images,    \
                       std::int64_t harmonics, std::int64_t count, float* rows);                                \
    void harmonic_sums(const float* rows, const float* gradient, std::int64_t images, std::int64_t harmonics,   \
                       std::int64_t count, float* sums);                                                        \
    void add_gaussians(const WindowedGaussians& mixture, std::int64_t first, std::int64_t last,                 \
                       std::int64_t first_plane, std::int64_t last_plane, float* volume);                       \
    void gaussian_moments(const WindowedGaussians& mixture, const float* volume, std::int64_t first,            \
                          std::int64_t last, float* moments);                                                   \
    }

HOARFROST_KERNELS(portable)
HOARFROST_KERNELS(avx2)
HOARFROST_KERNELS(avx512)
HOARFROST_KERNELS(amx)
