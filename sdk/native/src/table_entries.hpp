// What Tables and PairTables make of a frequency.
#pragma once

#include <cmath>
#include <cstdint>

#include "percodec/rans.hpp"

namespace percodec {

// log2(frequency) in 1/256, rounded down, by repeated squaring: the same on every machine.
inline unsigned log2_q8(std::uint32_t frequency) {
    unsigned exponent = 0;
    while (frequency >> (exponent + 1)) ++exponent;
    std::uint32_t mantissa = frequency << (15 - exponent);  // [2^15, 2^16)
    unsigned result = exponent;
    for (int bit = 0; bit < 8; ++bit) {
        mantissa = mantissa * mantissa >> 15;
        const unsigned one = mantissa >> 16;
        result = result << 1 | one;
        mantissa >>= one;
    }
    return result;
}

// Of probabilities of `bits` bits and states below 2^state_bits.
inline Tables::Encode encode_entry(std::uint32_t start, std::uint32_t frequency, unsigned bits, unsigned state_bits) {
    const std::uint32_t scale = 1u << bits;
    Tables::Encode e{};
    e.renorm_from = frequency << (state_bits - bits);
    e.complement = static_cast<std::uint16_t>(scale - frequency);
    if (frequency == 1) {
        // 2^64 / 1 does not fit: with 2^64 - 1 the quotient is x - 1, and the bias makes up for the missing scale - 1.
        e.reciprocal = ~std::uint64_t{0};
        e.bias = static_cast<std::uint16_t>(start + scale - 1);
    } else {
        e.reciprocal = ~std::uint64_t{0} / frequency + 1;  // ceil(2^64 / frequency): exact for every 32-bit x
        e.bias = static_cast<std::uint16_t>(start);
    }
    return e;
}

// 1 / frequency, rounded down.
inline float inverse(std::uint32_t frequency) {
    const float nearest = 1.0f / static_cast<float>(frequency);
    const bool above = static_cast<double>(nearest) * frequency > 1.0;  // exact: 24 bits by 14
    return above ? std::nextafter(nearest, 0.0f) : nearest;
}

}  // namespace percodec
