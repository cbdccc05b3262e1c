#include "context_kernels.hpp"

#include <algorithm>
#include <cstring>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false alarms inside GCC's own intrinsics
#endif
#endif

namespace percodec {
namespace {

constexpr std::size_t kStep = 64;  // vectors may work past `count`, up to this much

// Symbols of neighbour `k` for columns [begin, begin + count), its fill where there are none.
void gather(const ContextRows& rows, std::size_t k, std::size_t y, std::size_t begin, std::size_t count,
            std::uint8_t* line) noexcept {
    const Contexts::Neighbour& n = rows.channel.neighbours[k];
    const auto row = static_cast<std::ptrdiff_t>(y) + n.dy;
    const bool inside = row >= 0 && row < static_cast<std::ptrdiff_t>(rows.height);
    const auto left = static_cast<std::ptrdiff_t>(begin) + n.dx;
    const auto many = static_cast<std::ptrdiff_t>(count);
    const auto first = std::clamp<std::ptrdiff_t>(-left, 0, many);
    const auto last = std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(rows.width) - left, first, many);
    std::memset(line, n.fill[0], count);
    if (!inside || last <= first) return;
    const auto from = static_cast<std::ptrdiff_t>(y * rows.width + begin) + first + rows.offset[k];
    std::memcpy(line + first, rows.symbols + from, static_cast<std::size_t>(last - first));
}

void finish(const Contexts::Channel& channel, const std::int8_t* mean, const std::int8_t* spread, std::size_t count,
            unsigned scale, std::uint8_t* out) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        unsigned bin = channel.mean_bin[static_cast<std::uint8_t>(mean[i])];
        for (std::int8_t border : channel.spread_borders) bin += spread[i] >= border;
        out[i] = static_cast<std::uint8_t>(channel.map[bin] * scale);
    }
}

}  // namespace

void block_plain(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                 std::uint8_t* out) noexcept {
    std::int8_t mean[ContextRows::kBlock] = {}, spread[ContextRows::kBlock] = {};
    std::uint8_t line[ContextRows::kBlock];
    for (std::size_t k = 0; k < rows.channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = rows.channel.neighbours[k];
        gather(rows, k, y, begin, count, line);
        for (std::size_t i = 0; i < count; ++i) {
            mean[i] = static_cast<std::int8_t>(mean[i] + n.mean[line[i]]);
            spread[i] = static_cast<std::int8_t>(spread[i] + n.spread[line[i]]);
        }
    }
    finish(rows.channel, mean, spread, count, scale, out);
}

#if defined(__x86_64__)
// A table of sixteen bytes fits a register, and a byte shuffle looks all of its bytes up at once.
__attribute__((target("avx2"))) void block_avx2(const ContextRows& rows, std::size_t y, std::size_t begin,
                                                std::size_t count, unsigned scale, std::uint8_t* out) noexcept {
    std::int8_t mean[ContextRows::kBlock + kStep] = {}, spread[ContextRows::kBlock + kStep] = {};
    std::uint8_t line[ContextRows::kBlock + kStep] = {};
    for (std::size_t k = 0; k < rows.channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = rows.channel.neighbours[k];
        gather(rows, k, y, begin, count, line);
        const __m256i m = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(n.mean)));
        const __m256i s = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(n.spread)));
        for (std::size_t i = 0; i < count; i += 32) {
            const __m256i level = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + i));
            auto* to_mean = reinterpret_cast<__m256i*>(mean + i);
            auto* to_spread = reinterpret_cast<__m256i*>(spread + i);
            _mm256_storeu_si256(to_mean, _mm256_add_epi8(_mm256_loadu_si256(to_mean), _mm256_shuffle_epi8(m, level)));
            _mm256_storeu_si256(to_spread,
                                _mm256_add_epi8(_mm256_loadu_si256(to_spread), _mm256_shuffle_epi8(s, level)));
        }
    }
    finish(rows.channel, mean, spread, count, scale, out);
}

bool contexts_avx512_supported() noexcept {
    static const bool supported = kernel_supported(Kernel::avx512) && __builtin_cpu_supports("avx512vbmi");
    return supported;
}

#define PERCODEC_BYTES __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")))

// 64 columns from `column` on of the `Rows` rows from `y` on. Two neighbours to a look-up: their levels make six bits,
// and a register holds what each of the 64 adds. Several rows share everything but their symbols; their neighbours must
// lie in rows that exist.
template <unsigned Rows>
PERCODEC_BYTES inline void strip_avx512(const ContextRows& rows, std::size_t y, std::size_t column, unsigned scale,
                                        std::uint8_t* out) noexcept {
    const Contexts::Channel& channel = rows.channel;
    const Contexts::Neighbour* const neighbours = channel.neighbours.data();
    const Contexts::Pair* const pairs = channel.pairs.data();
    const std::size_t many = channel.neighbours.size();
    std::uint64_t inside[2 * kMaxReach + 1];  // all columns of rows that exist, by dy
    for (int dy = -kMaxReach; dy <= kMaxReach; ++dy) {
        const auto row = static_cast<std::ptrdiff_t>(y) + dy;
        inside[dy + kMaxReach] = row >= 0 && row < static_cast<std::ptrdiff_t>(rows.height) ? ~std::uint64_t{0} : 0;
    }
    const auto left = static_cast<std::ptrdiff_t>(column);
    std::uint64_t columns[2 * kMaxReach + 1];  // that exist, by dx
    for (int dx = -kMaxReach; dx <= kMaxReach; ++dx) {
        const std::ptrdiff_t last =
            std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(rows.width) - left - dx, 0, 64);
        const std::ptrdiff_t first = std::max<std::ptrdiff_t>(0, -(left + dx));
        columns[dx + kMaxReach] = _bzhi_u64(~std::uint64_t{0}, static_cast<unsigned>(last)) & ~std::uint64_t{0}
                                                                                                  << first;
    }
    // Bytes without a mask bit are not touched, wherever they would be: an address, not a pointer into an array.
    const std::uintptr_t here = reinterpret_cast<std::uintptr_t>(rows.symbols) + y * rows.width + column;
    __m512i mean[Rows], spread[Rows];
    for (unsigned r = 0; r < Rows; ++r) mean[r] = spread[r] = _mm512_setzero_si512();
    const auto load = [&](std::size_t k, unsigned r) __attribute__((always_inline, target("avx512f,avx512bw"))) {
        const auto* at =
            reinterpret_cast<const void*>(here + r * rows.width + static_cast<std::uintptr_t>(rows.offset[k]));
        return _mm512_mask_loadu_epi8(_mm512_load_si512(neighbours[k].fill),
                                      columns[rows.right[k]] & inside[rows.down[k]], at);
    };
    const auto add = [&](std::size_t k, unsigned r,
                         __m512i level) __attribute__((always_inline, target("avx512f,avx512bw,avx512vbmi"))) {
        mean[r] = _mm512_add_epi8(mean[r], _mm512_permutexvar_epi8(level, _mm512_load_si512(pairs[k / 2].mean)));
        spread[r] = _mm512_add_epi8(spread[r], _mm512_permutexvar_epi8(level, _mm512_load_si512(pairs[k / 2].spread)));
    };
    std::size_t k = 0;
    for (; k + 1 < many; k += 2) {
        for (unsigned r = 0; r < Rows; ++r) {
            add(k, r, _mm512_or_si512(load(k, r), _mm512_slli_epi16(load(k + 1, r), 3)));
        }
    }
    if (k < many) {
        for (unsigned r = 0; r < Rows; ++r) add(k, r, load(k, r));
    }
    for (unsigned r = 0; r < Rows; ++r) {
        const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(channel.mean_bin), mean[r],
                                                      _mm512_load_si512(channel.mean_bin + 64));
        const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(channel.mean_bin + 128), mean[r],
                                                     _mm512_load_si512(channel.mean_bin + 192));
        __m512i bin = _mm512_mask_mov_epi8(high, _mm512_movepi8_mask(mean[r]), low);
        for (std::int8_t border : channel.spread_borders) {
            bin = _mm512_mask_add_epi8(bin, _mm512_cmpge_epi8_mask(spread[r], _mm512_set1_epi8(border)), bin,
                                       _mm512_set1_epi8(1));
        }
        const __m512i context = _mm512_permutexvar_epi8(bin, _mm512_load_si512(channel.map));
        // No byte multiplication: contexts times scale are below 256, so that 16 bits hold two of them.
        const __m512i times = _mm512_mullo_epi16(context, _mm512_set1_epi16(static_cast<short>(scale)));
        _mm512_storeu_si512(out + r * rows.width, times);
    }
}

PERCODEC_BYTES void block_avx512(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                                 unsigned scale, std::uint8_t* out) noexcept {
    for (std::size_t done = 0; done < count; done += 64) strip_avx512<1>(rows, y, begin + done, scale, out + done);
}

PERCODEC_BYTES std::size_t lines_avx512(const ContextRows& rows, std::size_t y, unsigned scale,
                                        std::uint8_t* out) noexcept {
    constexpr unsigned kLines = 4;
    const bool inner = y >= kMaxReach && y + kLines + kMaxReach <= rows.height;
    // From the last strip to the first, rows in order: what one writes past its row's end is overwritten then.
    for (std::size_t strip = (rows.width + 63) / 64; strip-- > 0;) {
        if (inner) {
            strip_avx512<kLines>(rows, y, 64 * strip, scale, out + 64 * strip);
        } else {
            strip_avx512<1>(rows, y, 64 * strip, scale, out + 64 * strip);
        }
    }
    return inner ? kLines : 1;
}
#endif

#if defined(__aarch64__)
// As with AVX2: a table of sixteen bytes fits a register.
void block_neon(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                std::uint8_t* out) noexcept {
    std::int8_t mean[ContextRows::kBlock + kStep] = {}, spread[ContextRows::kBlock + kStep] = {};
    std::uint8_t line[ContextRows::kBlock + kStep] = {};
    for (std::size_t k = 0; k < rows.channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = rows.channel.neighbours[k];
        gather(rows, k, y, begin, count, line);
        const int8x16_t m = vld1q_s8(n.mean), s = vld1q_s8(n.spread);
        for (std::size_t i = 0; i < count; i += 16) {
            const uint8x16_t level = vld1q_u8(line + i);
            vst1q_s8(mean + i, vaddq_s8(vld1q_s8(mean + i), vqtbl1q_s8(m, level)));
            vst1q_s8(spread + i, vaddq_s8(vld1q_s8(spread + i), vqtbl1q_s8(s, level)));
        }
    }
    finish(rows.channel, mean, spread, count, scale, out);
}
#endif

}  // namespace percodec
