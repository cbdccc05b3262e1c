#include "percodec/sha256.hpp"

#include <cstring>

namespace percodec {
namespace {

using Words = std::array<std::uint32_t, 8>;

// First 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2).
constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t x, unsigned by) noexcept {
    return x >> by | x << (32 - by);
}

void absorb(Words& h, const std::uint8_t* block) noexcept {
    std::uint32_t w[64];
    for (unsigned t = 0; t < 16; ++t) {
        const std::uint8_t* p = block + 4 * std::size_t{t};
        w[t] = std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
    }
    for (unsigned t = 16; t < 64; ++t) {
        const std::uint32_t a = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
        const std::uint32_t b = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + a + w[t - 7] + b;
    }
    Words s = h;
    for (unsigned t = 0; t < 64; ++t) {
        const std::uint32_t e = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        const std::uint32_t one = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + kRound[t] + w[t];
        const std::uint32_t a = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        const std::uint32_t two = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s = {one + two, s[0], s[1], s[2], s[3] + one, s[4], s[5], s[6]};
    }
    for (unsigned k = 0; k < 8; ++k) h[k] += s[k];
}

}  // namespace

std::array<std::uint8_t, 32> sha256(const std::uint8_t* data, std::size_t size) noexcept {
    Words h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::size_t done = 0;
    for (; size - done >= 64; done += 64) absorb(h, data + done);
    // What is left, a one bit, zeros, and the length in bits at the end of a block.
    std::uint8_t tail[128] = {};
    const std::size_t left = size - done, padded = left < 56 ? 64 : 128;
    if (left > 0) std::memcpy(tail, data + done, left);
    tail[left] = 0x80;
    for (unsigned k = 0; k < 8; ++k) tail[padded - 1 - k] = static_cast<std::uint8_t>(std::uint64_t{size} * 8 >> 8 * k);
    for (std::size_t at = 0; at < padded; at += 64) absorb(h, tail + at);
    std::array<std::uint8_t, 32> digest;
    for (unsigned k = 0; k < 32; ++k) digest[k] = static_cast<std::uint8_t>(h[k / 4] >> (24 - 8 * (k % 4)));
    return digest;
}

}  // namespace percodec
