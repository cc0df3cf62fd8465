// Tile registers of 16 rows of 64 bytes: those of AMX, or arrays that behave like them where there are none.
#pragma once

#include "search/packed.h"

#if defined(__AMX_INT8__)
#include <immintrin.h>

#define TILE_ZERO(tile) _tile_zero(tile)
#define TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define TILE_PRODUCT(sum, left, right) _tile_dpbssd(sum, left, right)

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// All eight tiles at their full size, for as long as this lives.
struct Tiles {
    Tiles() {
        struct alignas(64) Configuration {
            std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {};
            std::uint8_t rows[16] = {};
        } configuration;
        for (int tile = 0; tile < 8; ++tile) configuration.row_bytes[tile] = 64, configuration.rows[tile] = 16;
        // The compiler does not know that the instruction reads the whole structure.
        __asm__ volatile("" : : "m"(configuration) : "memory");
        _tile_loadconfig(&configuration);
        __asm__ volatile("" : : : "memory");
    }
    ~Tiles() { _tile_release(); }
};

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
#else

#define TILE_ZERO(tile) tiles.zero(tile)
#define TILE_LOAD(tile, from, stride) tiles.load(tile, from, stride)
#define TILE_STORE(tile, to, stride) tiles.store(tile, to, stride)
#define TILE_PRODUCT(sum, left, right) tiles.product(sum, left, right)

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

struct Tiles {
    alignas(64) std::int8_t bytes[4][16][64];    // tiles 4 to 7 are only ever loaded
    alignas(64) std::int32_t sums[4][16][16];    // tiles 0 to 3 are only ever summed into

    void zero(int tile) { std::memset(sums[tile], 0, sizeof sums[tile]); }
    void load(int tile, const void* from, std::int64_t stride) {
        for (int row = 0; row < 16; ++row)
            std::memcpy(bytes[tile - 4][row], static_cast<const char*>(from) + row * stride, 64);
    }
    void store(int tile, void* to, std::int64_t stride) const {
        for (int row = 0; row < 16; ++row) std::memcpy(static_cast<char*>(to) + row * stride, sums[tile][row], 64);
    }
    void product(int sum, int left, int right) {
        for (int row = 0; row < 16; ++row)
            for (int quad = 0; quad < 16; ++quad)
                for (int column = 0; column < 16; ++column)
                    for (int k = 0; k < 4; ++k)
                        sums[sum][row][column] +=
                            static_cast<std::int32_t>(bytes[left - 4][row][4 * quad + k]) * bytes[right - 4][quad][4 * column + k];
    }
};

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
#endif
