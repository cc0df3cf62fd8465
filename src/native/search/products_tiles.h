// Products of tiles: 32 rows, whichever images they are of, against 32 slices.
#pragma once

#include "search/tiles.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

constexpr std::int64_t TILE_ROWS = 32;

struct Products {
    Tiles tiles;
    alignas(64) std::int32_t sums[2][2][TILE_ROWS][BLOCK];  // this block of rows and the one before; even, odd
};

inline void take_maxima(const std::int32_t (&sums)[2][TILE_ROWS][BLOCK], std::int64_t first_row, std::int64_t rows,
                        std::int64_t shifts, std::int32_t shift_bits, std::int32_t* best) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t image = (first_row + row) / shifts;
        const auto shift = static_cast<std::int32_t>((first_row + row) % shifts);
        std::int32_t *plus = best + image * 2 * BLOCK, *minus = plus + BLOCK;
        const std::int32_t *even = sums[0][row], *odd = sums[1][row];
        for (std::int64_t column = 0; column < BLOCK; ++column) {
            const std::int32_t sum = ((even[column] + odd[column]) & ~shift_bits) | shift;
            const std::int32_t difference = ((even[column] - odd[column]) & ~shift_bits) | shift;
            plus[column] = sum > plus[column] ? sum : plus[column];
            minus[column] = difference > minus[column] ? difference : minus[column];
        }
    }
}

// `best` (images, 2, BLOCK) is raised to the maxima over the shifts of each image.
//
// `rows` must have room for a multiple of TILE_ROWS. The maxima of a block of rows are taken while the tiles already
// multiply the next.
inline void best_of_block(Products& products, const Element* rows, std::int64_t images, std::int64_t shifts,
                          const SliceBlock& block, std::int32_t* best) {
    [[maybe_unused]] Tiles& tiles = products.tiles;
    const std::int64_t length = row_length(block.padded), count = images * shifts;
    const std::int64_t blocks = (count + TILE_ROWS - 1) / TILE_ROWS;
    for (std::int64_t now = 0; now <= blocks; ++now) {
        for (int odd = 0; odd < 2 && now < blocks; ++odd) {
            const Element* left = rows + now * TILE_ROWS * length + odd * block.padded;
            const std::int8_t *first = block.part(0, odd), *second = block.part(1, odd);
            TILE_ZERO(0); TILE_ZERO(1); TILE_ZERO(2); TILE_ZERO(3);
            for (std::int64_t k = 0; k < block.padded; k += DEPTH) {
                TILE_LOAD(4, left + k, length);
                TILE_LOAD(5, left + 16 * length + k, length);
                TILE_LOAD(6, first + k * LANES, 64);
                TILE_LOAD(7, second + k * LANES, 64);
                TILE_PRODUCT(0, 4, 6); TILE_PRODUCT(1, 4, 7); TILE_PRODUCT(2, 5, 6); TILE_PRODUCT(3, 5, 7);
            }
            auto& sums = products.sums[now % 2][odd];
            TILE_STORE(0, sums[0], sizeof sums[0]);
            TILE_STORE(1, sums[0] + LANES, sizeof sums[0]);
            TILE_STORE(2, sums[16], sizeof sums[0]);
            TILE_STORE(3, sums[16] + LANES, sizeof sums[0]);
        }
        if (now == 0) continue;
        const std::int64_t first_row = (now - 1) * TILE_ROWS, left_over = count - first_row;
        take_maxima(products.sums[(now - 1) % 2], first_row, left_over < TILE_ROWS ? left_over : TILE_ROWS, shifts,
                    block.shift_bits, best);
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
