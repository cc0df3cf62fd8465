// How fast the processor multiplies 8-bit integers at most: products whose operands never leave the registers.
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// Runs `rounds` rounds and returns the operations (multiplications and additions) of one.
std::int64_t integer_products(std::int64_t rounds) {
#if defined(__AMX_INT8__)
    struct alignas(64) Configuration {
        std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
        std::uint16_t row_bytes[16] = {};
        std::uint8_t rows[16] = {};
    } configuration;
    for (int tile = 0; tile < 8; ++tile) configuration.row_bytes[tile] = 64, configuration.rows[tile] = 16;
    // The compiler does not know that the instruction reads the whole structure.
    __asm__ volatile("" : : "m"(configuration) : "memory");
    _tile_loadconfig(&configuration);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
    for (std::int64_t round = 0; round < rounds; ++round) {
        _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 4, 7); _tile_dpbssd(2, 5, 6); _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return 4 * 2 * 16 * 16 * 64;
#elif defined(__AVX512VNNI__)
    __m512i sum[16];
    for (auto& one : sum) one = _mm512_setzero_si512();
    __m512i left = _mm512_set1_epi32(1), right = _mm512_set1_epi32(1);
    for (std::int64_t round = 0; round < rounds; ++round) {
        for (auto& one : sum) one = _mm512_dpbusd_epi32(one, left, right);
        __asm__ volatile("" : "+v"(left), "+v"(right));
    }
    for (auto& one : sum) __asm__ volatile("" : : "v"(one));
    return 16 * 2 * 64;
#elif defined(__AVX2__)
    __m256i sum[10];
    for (auto& one : sum) one = _mm256_setzero_si256();
    __m256i left = _mm256_set1_epi16(1), right = _mm256_set1_epi16(1);
    for (std::int64_t round = 0; round < rounds; ++round) {
        for (auto& one : sum) {
            one = _mm256_add_epi32(one, _mm256_madd_epi16(left, right));
            __asm__ volatile("" : "+x"(left));
        }
    }
    for (auto& one : sum) __asm__ volatile("" : : "x"(one));
    return 10 * 2 * 16;
#else
    std::int32_t sum[64] = {};
    std::int16_t left[64], right[64];
    for (int i = 0; i < 64; ++i) left[i] = 1, right[i] = 1;
    for (std::int64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < 64; ++i) sum[i] += left[i] * right[i];
        __asm__ volatile("" : : "r"(left), "r"(right) : "memory");
    }
    for (auto& one : sum) __asm__ volatile("" : : "r"(one));
    return 64 * 2;
#endif
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
