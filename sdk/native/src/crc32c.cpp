#include "percodec/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#endif

namespace percodec {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78u;  // 0x1EDC6F41, bits reflected

using SliceTables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr SliceTables make_slices() {
    SliceTables t{};
    for (std::uint32_t n = 0; n < 256; ++n) {
        std::uint32_t c = n;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1u) ? kPolynomial : 0u);
        t[0][n] = c;
    }
    for (std::uint32_t n = 0; n < 256; ++n) {
        for (std::size_t k = 1; k < 8; ++k) t[k][n] = (t[k - 1][n] >> 8) ^ t[0][t[k - 1][n] & 0xFFu];
    }
    return t;
}

constexpr SliceTables kSlices = make_slices();

// All functions below work on the raw register: without the initial and final inversion.

std::uint32_t step_bytes(const std::uint8_t* p, std::size_t size, std::uint32_t crc) noexcept {
    for (std::size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ kSlices[0][(crc ^ p[i]) & 0xFFu];
    return crc;
}

std::uint32_t load_le32(const std::uint8_t* p) noexcept {
    return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
           static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

std::uint32_t sliced(const std::uint8_t* p, std::size_t size, std::uint32_t crc) noexcept {
    for (; size >= 8; p += 8, size -= 8) {
        const std::uint32_t a = load_le32(p) ^ crc;
        const std::uint32_t b = load_le32(p + 4);
        crc = kSlices[7][a & 0xFFu] ^ kSlices[6][(a >> 8) & 0xFFu] ^ kSlices[5][(a >> 16) & 0xFFu] ^
              kSlices[4][a >> 24] ^ kSlices[3][b & 0xFFu] ^ kSlices[2][(b >> 8) & 0xFFu] ^
              kSlices[1][(b >> 16) & 0xFFu] ^ kSlices[0][b >> 24];
    }
    return step_bytes(p, size, crc);
}

#if (defined(__aarch64__) && defined(__linux__)) || defined(__x86_64__)

// The CRC instruction has a latency of three cycles and a throughput of one: three blocks run side by side, and
// the first two registers are then moved past the blocks that follow them ("as if zeros had been appended").
constexpr std::size_t kBlock = 1024;

using ZeroTables = std::array<std::array<std::uint32_t, 256>, 4>;

// kAppend[k][b]: the register holding b in byte k, after `kBlock` zero bytes.
constexpr ZeroTables make_append() {
    // The map is linear over bits, so 32 basis vectors, each advanced by squaring 8 * kBlock = 2^13 single shifts.
    std::array<std::uint32_t, 32> basis{};
    for (std::size_t bit = 0; bit < 32; ++bit) {
        const std::uint32_t v = 1u << bit;
        basis[bit] = (v >> 1) ^ ((v & 1u) ? kPolynomial : 0u);
    }
    for (std::size_t doublings = 0; (std::size_t{1} << doublings) < 8 * kBlock; ++doublings) {
        std::array<std::uint32_t, 32> squared{};
        for (std::size_t bit = 0; bit < 32; ++bit) {
            for (std::size_t j = 0; j < 32; ++j) {
                if ((basis[bit] >> j) & 1u) squared[bit] ^= basis[j];
            }
        }
        basis = squared;
    }
    ZeroTables t{};
    for (std::size_t k = 0; k < 4; ++k) {
        for (std::uint32_t b = 0; b < 256; ++b) {
            for (std::size_t bit = 0; bit < 8; ++bit) {
                if ((b >> bit) & 1u) t[k][b] ^= basis[8 * k + bit];
            }
        }
    }
    return t;
}

static_assert((8 * kBlock & (8 * kBlock - 1)) == 0, "the squaring above needs a power of two");
constexpr ZeroTables kAppend = make_append();

std::uint32_t append_block(std::uint32_t crc) noexcept {
    return kAppend[0][crc & 0xFFu] ^ kAppend[1][(crc >> 8) & 0xFFu] ^ kAppend[2][(crc >> 16) & 0xFFu] ^
           kAppend[3][crc >> 24];
}

#if defined(__x86_64__)
#define PERCODEC_CRC_TARGET __attribute__((target("sse4.2")))
#define PERCODEC_CRC_STEP(crc, word) _mm_crc32_u64((crc), (word))
bool has_instruction() noexcept {
    return __builtin_cpu_supports("sse4.2");
}
#else
#define PERCODEC_CRC_TARGET __attribute__((target("+crc")))
#define PERCODEC_CRC_STEP(crc, word) __crc32cd(static_cast<std::uint32_t>(crc), (word))
bool has_instruction() noexcept {
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}
#endif

PERCODEC_CRC_TARGET std::uint32_t with_instruction(const std::uint8_t* p, std::size_t size,
                                                   std::uint32_t crc) noexcept {
    std::uint64_t a = crc;
    std::uint64_t word = 0;
    for (; size >= 3 * kBlock; p += 3 * kBlock, size -= 3 * kBlock) {
        std::uint64_t b = 0;
        std::uint64_t c = 0;
        for (std::size_t i = 0; i < kBlock; i += 8) {
            std::memcpy(&word, p + i, 8);
            a = PERCODEC_CRC_STEP(a, word);
            std::memcpy(&word, p + kBlock + i, 8);
            b = PERCODEC_CRC_STEP(b, word);
            std::memcpy(&word, p + 2 * kBlock + i, 8);
            c = PERCODEC_CRC_STEP(c, word);
        }
        a = append_block(append_block(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^ c;
    }
    for (; size >= 8; p += 8, size -= 8) {
        std::memcpy(&word, p, 8);
        a = PERCODEC_CRC_STEP(a, word);
    }
    return step_bytes(p, size, static_cast<std::uint32_t>(a));
}

#endif

}  // namespace

std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t crc) noexcept {
    return ~sliced(static_cast<const std::uint8_t*>(data), size, ~crc);
}

std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t crc) noexcept {
#if (defined(__aarch64__) && defined(__linux__)) || defined(__x86_64__)
    static const bool instruction = has_instruction();
    if (instruction) return ~with_instruction(static_cast<const std::uint8_t*>(data), size, ~crc);
#endif
    return crc32c_portable(data, size, crc);
}

}  // namespace percodec
