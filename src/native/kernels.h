// What every instruction set offers. Each kernel file is compiled once for each, under the namespace of its name.
#pragma once

#include <cstdint>

#define HOARFROST_KERNELS(name)                              \
    namespace hoarfrost::name {                              \
    std::int64_t integer_products(std::int64_t rounds);      \
    }

HOARFROST_KERNELS(portable)
HOARFROST_KERNELS(avx2)
HOARFROST_KERNELS(avx512)
HOARFROST_KERNELS(amx)
