// What the processor can do: which of the compiled instruction sets may be used.
#pragma once

enum InstructionSet { PORTABLE = 0, AVX2 = 1, AVX512 = 2, AMX = 3 };

#ifdef HOARFROST_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// The registers that the operating system saves for a program.
inline unsigned long long saved_registers() {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
}

// Tile registers have to be asked for, once a process.
inline bool tiles_granted() {
#if defined(__linux__) && defined(HOARFROST_AMX)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

inline InstructionSet best_instruction_set() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return PORTABLE;
    const bool fma = c & (1u << 12), saves = c & (1u << 27), half = c & (1u << 29);
    if (!fma || !saves || !half) return PORTABLE;
    const auto saved = saved_registers();
    unsigned b7, c7, d7;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & (1u << 5)) || (saved & 0x6) != 0x6) return PORTABLE;
    const bool foundation = b7 & (1u << 16), quad = b7 & (1u << 17), byte = b7 & (1u << 30), length = b7 & (1u << 31);
    const bool integer_products = c7 & (1u << 11);
    if (!(foundation && quad && byte && length && integer_products) || (saved & 0xe6) != 0xe6) return AVX2;
    const bool tile = d7 & (1u << 24), tile_int8 = d7 & (1u << 25);
    if (!(tile && tile_int8) || (saved & 0x60000) != 0x60000 || !tiles_granted()) return AVX512;
    return AMX;
}
#else
inline InstructionSet best_instruction_set() { return PORTABLE; }
#endif
