// The functions that Python calls, each handed on to the kernel of the chosen instruction set.
#include <algorithm>
#include <atomic>

#include "kernels.h"
#include "processor.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Tiles that multiply wrongly, as under some emulators and compilers, are not used.
InstructionSet trusted(InstructionSet found) {
#if defined(HOARFROST_AMX)
    if (found == AMX && hoarfrost::amx::search_checksum() != hoarfrost::avx512::search_checksum()) return AVX512;
#endif
    return found;
}

InstructionSet best() {
    static const InstructionSet found = trusted(best_instruction_set());
    return found;
}

std::atomic<int> limit{AMX};

InstructionSet chosen() { return static_cast<InstructionSet>(std::min<int>(best(), limit.load())); }

}  // namespace

#if defined(HOARFROST_AMX)
#define IF_AMX(call) case AMX: return hoarfrost::amx::call;
#else
#define IF_AMX(call)
#endif
#if defined(HOARFROST_X86)
#define IF_X86(call) case AVX512: return hoarfrost::avx512::call; case AVX2: return hoarfrost::avx2::call;
#else
#define IF_X86(call)
#endif
#define DISPATCH(call)                              \
    switch (chosen()) {                             \
        IF_AMX(call)                                \
        IF_X86(call)                                \
        default: return hoarfrost::portable::call;  \
    }

// Version of this interface, one more whenever the arguments of a function change; Python refuses a library of
// another one.
EXPORT int hoarfrost_interface_version() { return 1; }

// The instruction set in use.
EXPORT int hoarfrost_instructions() { return chosen(); }

// Use nothing beyond an instruction set from now on.
EXPORT void hoarfrost_limit_instructions(int highest) { limit.store(highest); }

EXPORT std::int64_t hoarfrost_integer_products(std::int64_t rounds) { DISPATCH(integer_products(rounds)) }

EXPORT void hoarfrost_insertion_sizes(std::int64_t centre, std::int64_t limit, std::int64_t* sizes) {
    DISPATCH(insertion_sizes(centre, limit, sizes))
}

EXPORT void hoarfrost_arrange_slices(const hoarfrost::InsertedSlices* slices, std::int64_t part) {
    DISPATCH(arrange_slices(*slices, part))
}

EXPORT void hoarfrost_fill_slab(const hoarfrost::InsertedSlices* slices, std::int64_t slab, float* sums) {
    DISPATCH(fill_slab(*slices, slab, sums))
}

EXPORT void hoarfrost_normal_equations(const hoarfrost::SlicedImages* batch, const double* rotations,
                                       const double* shifts, double* curvature, double* slope, double* likelihood) {
    DISPATCH(normal_equations(*batch, rotations, shifts, curvature, slope, likelihood))
}

EXPORT void hoarfrost_log_likelihood(const hoarfrost::SlicedImages* batch, const double* rotations,
                                     const double* shifts, double* likelihood) {
    DISPATCH(log_likelihood(*batch, rotations, shifts, likelihood))
}

EXPORT void hoarfrost_refine_poses(const hoarfrost::SlicedImages* batch, std::int64_t iterations, double largest_turn,
                                   double* rotations, double* shifts, double* likelihood) {
    DISPATCH(refine_poses(*batch, iterations, largest_turn, rotations, shifts, likelihood))
}

EXPORT void hoarfrost_read_points(const float* table, std::int64_t channels, std::int64_t centre, const float* points,
                                  std::int64_t count, float* result) {
    DISPATCH(read_points(table, channels, centre, points, count, result))
}

EXPORT void hoarfrost_pack_slices(const hoarfrost::PackedSlices* bank) { DISPATCH(pack_slices(*bank)) }

EXPORT void hoarfrost_search(const hoarfrost::SearchProblem* problem, std::int64_t first, std::int64_t last) {
    DISPATCH(search(*problem, first, last))
}

EXPORT std::int64_t hoarfrost_search_checksum() { DISPATCH(search_checksum()) }

EXPORT void hoarfrost_normalise_images(float* images, std::int64_t count, std::int64_t box, double radius,
                                       std::int64_t invert) {
    DISPATCH(normalise_images(images, count, box, radius, invert))
}

EXPORT void hoarfrost_pick_coefficients(const float* spectra, std::int64_t count, std::int64_t stride,
                                        const std::int32_t* place, const float* factor, std::int64_t coefficients,
                                        float* result) {
    DISPATCH(pick_coefficients(spectra, count, stride, place, factor, coefficients, result))
}

EXPORT void hoarfrost_spread_images(const hoarfrost::SpreadImages* spread, std::int64_t first, std::int64_t last) {
    DISPATCH(spread_images(*spread, first, last))
}

EXPORT void hoarfrost_harmonic_rows(const float* cosines, const float* sines, const float* envelope,
                                    std::int64_t images, std::int64_t harmonics, std::int64_t count, float* rows) {
    DISPATCH(harmonic_rows(cosines, sines, envelope, images, harmonics, count, rows))
}

EXPORT void hoarfrost_harmonic_sums(const float* rows, const float* gradient, std::int64_t images,
                                    std::int64_t harmonics, std::int64_t count, float* sums) {
    DISPATCH(harmonic_sums(rows, gradient, images, harmonics, count, sums))
}

EXPORT void hoarfrost_add_gaussians(const hoarfrost::WindowedGaussians* mixture, std::int64_t first, std::int64_t last,
                                    std::int64_t first_plane, std::int64_t last_plane, float* volume) {
    DISPATCH(add_gaussians(*mixture, first, last, first_plane, last_plane, volume))
}

EXPORT void hoarfrost_gaussian_moments(const hoarfrost::WindowedGaussians* mixture, const float* volume,
                                       std::int64_t first, std::int64_t last, float* moments) {
    DISPATCH(gaussian_moments(*mixture, volume, first, last, moments))
}
