#include "context_kernels.hpp"

#include <algorithm>
#include <cstring>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__x86_64__)
#include "avx512.hpp"
#endif

namespace percodec {
namespace {

// Does `Wide` columns of one row, and writes that many bytes whatever the picture's width.
using Strip = void (*)(const ContextRows& rows, std::size_t y, std::size_t column, std::uint8_t* out);

template <Strip One, std::size_t Wide>
void block(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, std::uint8_t* out) noexcept {
    for (std::size_t done = 0; done < count; done += Wide) One(rows, y, begin + done, out + done);
}

inline bool row_exists(const ContextRows& rows, std::size_t y, int dy) noexcept {
    const auto row = static_cast<std::ptrdiff_t>(y) + dy;
    return row >= 0 && row < static_cast<std::ptrdiff_t>(rows.height);
}

// Of `wide` columns from `begin` + `dx` on, those from `from` to before `to` exist.
struct Columns {
    std::ptrdiff_t from, to;
    Columns(const ContextRows& rows, std::size_t begin, int dx, std::size_t wide) noexcept {
        const auto left = static_cast<std::ptrdiff_t>(begin) + dx, most = static_cast<std::ptrdiff_t>(wide);
        from = std::clamp<std::ptrdiff_t>(-left, 0, most);
        to = std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(rows.width) - left, 0, most);
    }
};

// Symbols of neighbour `k` for columns [begin, begin + count), its fill where there are none.
void gather(const ContextRows& rows, std::size_t k, std::size_t y, std::size_t begin, std::size_t count,
            std::uint8_t* line) noexcept {
    const Contexts::Neighbour& n = rows.channel.neighbours[k];
    const Columns there(rows, begin, n.dx, count);
    std::memset(line, n.fill[0], count);
    if (!row_exists(rows, y, n.dy) || there.to <= there.from) return;
    const auto from = static_cast<std::ptrdiff_t>(y * rows.width + begin) + there.from + rows.offset[k];
    std::memcpy(line + there.from, rows.symbols + from, static_cast<std::size_t>(there.to - there.from));
}

}  // namespace

void block_plain(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                 std::uint8_t* out) noexcept {
    const Contexts::Channel& channel = rows.channel;
    std::int8_t mean[ContextRows::kBlock] = {}, spread[ContextRows::kBlock] = {};
    std::uint8_t line[ContextRows::kBlock];
    for (std::size_t k = 0; k < channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = channel.neighbours[k];
        gather(rows, k, y, begin, count, line);
        for (std::size_t i = 0; i < count; ++i) {
            mean[i] = static_cast<std::int8_t>(mean[i] + n.mean[line[i]]);
            spread[i] = static_cast<std::int8_t>(spread[i] + n.spread[line[i]]);
        }
    }
    for (std::size_t i = 0; i < count; ++i) {
        unsigned bin = channel.mean_bin[static_cast<std::uint8_t>(mean[i])];
        for (std::int8_t border : channel.spread_borders) bin += spread[i] >= border;
        out[i] = rows.map[bin];
    }
}

// Processors that look sixteen bytes up at once: a neighbour's table fits a register.
#if defined(__x86_64__)
#define PERCODEC_SIXTEEN __attribute__((target("avx2")))
namespace {

constexpr std::size_t kWide = 32;
using Bytes = std::uint8_t __attribute__((vector_size(32)));

PERCODEC_SIXTEEN inline __m256i bits(Bytes a) noexcept {
    return reinterpret_cast<__m256i>(a);
}
PERCODEC_SIXTEEN inline Bytes bytes_of(__m256i a) noexcept {
    return reinterpret_cast<Bytes>(a);
}
PERCODEC_SIXTEEN inline Bytes all(std::int8_t byte) noexcept {
    return bytes_of(_mm256_set1_epi8(byte));
}
PERCODEC_SIXTEEN inline Bytes load(const std::uint8_t* p) noexcept {
    return bytes_of(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
PERCODEC_SIXTEEN inline void store(std::uint8_t* p, Bytes a) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits(a));
}
PERCODEC_SIXTEEN inline Bytes table_of(const void* sixteen) noexcept {
    return bytes_of(_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(sixteen))));
}
PERCODEC_SIXTEEN inline Bytes pick(Bytes table, Bytes places) noexcept {
    return bytes_of(_mm256_shuffle_epi8(bits(table), bits(places)));
}
PERCODEC_SIXTEEN inline Bytes choose(Bytes mask, Bytes a, Bytes b) noexcept {
    return bytes_of(_mm256_blendv_epi8(bits(b), bits(a), bits(mask)));
}
// All ones where a > b, as signed bytes.
PERCODEC_SIXTEEN inline Bytes above(Bytes a, Bytes b) noexcept {
    return bytes_of(_mm256_cmpgt_epi8(bits(a), bits(b)));
}
// Of 64 bytes. Places of another sixteen are made to have their highest bit, which finds nothing.
PERCODEC_SIXTEEN inline Bytes pick_of_64(const std::uint8_t* table, Bytes places) noexcept {
    Bytes found = all(0);
    for (int k = 0; k < 64; k += 16) {
        const __m256i own = _mm256_sub_epi8(bits(places), _mm256_set1_epi8(static_cast<char>(k)));
        found |= pick(table_of(table + k), bytes_of(_mm256_adds_epu8(own, _mm256_set1_epi8(0x70))));
    }
    return found;
}

}  // namespace
#elif defined(__aarch64__)
#define PERCODEC_SIXTEEN
namespace {

constexpr std::size_t kWide = 16;
using Bytes = uint8x16_t;

inline Bytes all(std::int8_t byte) noexcept {
    return vdupq_n_u8(static_cast<std::uint8_t>(byte));
}
inline Bytes load(const std::uint8_t* p) noexcept {
    return vld1q_u8(p);
}
inline void store(std::uint8_t* p, Bytes a) noexcept {
    vst1q_u8(p, a);
}
inline Bytes table_of(const void* sixteen) noexcept {
    return vld1q_u8(static_cast<const std::uint8_t*>(sixteen));
}
inline Bytes pick(Bytes table, Bytes places) noexcept {
    return vqtbl1q_u8(table, places);
}
inline Bytes choose(Bytes mask, Bytes a, Bytes b) noexcept {
    return vbslq_u8(mask, a, b);
}
inline Bytes above(Bytes a, Bytes b) noexcept {
    return vcgtq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b));
}
inline Bytes pick_of_64(const std::uint8_t* table, Bytes places) noexcept {
    return vqtbl4q_u8(vld1q_u8_x4(table), places);
}

}  // namespace
#endif

#if defined(PERCODEC_SIXTEEN)
namespace {

// The neighbour's symbols of kWide columns. `there`: the columns that exist.
PERCODEC_SIXTEEN inline Bytes levels_of(const ContextRows& rows, std::size_t k, std::size_t y, std::size_t column,
                                        Bytes there) noexcept {
    const auto at = static_cast<std::ptrdiff_t>(y * rows.width + column) + rows.offset[k];
    const std::uint8_t* const fill = rows.channel.neighbours[k].fill;
    if (at >= rows.first && at + static_cast<std::ptrdiff_t>(kWide) <= rows.end)
        return choose(there, load(rows.symbols + at), load(fill));
    std::uint8_t line[kWide] = {};  // where the array begins or ends: the columns that exist, no byte more
    gather(rows, k, y, column, std::min(kWide, rows.width - column), line);
    return load(line);
}

PERCODEC_SIXTEEN void strip(const ContextRows& rows, std::size_t y, std::size_t column, std::uint8_t* out) noexcept {
    alignas(32) static constexpr std::uint8_t kColumn[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                             11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                             22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const Contexts::Channel& channel = rows.channel;
    Bytes columns[2 * kMaxReach + 1];  // that exist, by dx
    for (int dx = -kMaxReach; dx <= kMaxReach; ++dx) {
        const Columns there(rows, column, dx, kWide);
        columns[dx + kMaxReach] = above(all(static_cast<std::int8_t>(there.to)), load(kColumn)) &
                                  ~above(all(static_cast<std::int8_t>(there.from)), load(kColumn));
    }
    Bytes mean = all(0), spread = all(0);
    for (std::size_t k = 0; k < channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = channel.neighbours[k];
        const Bytes level =
            row_exists(rows, y, n.dy) ? levels_of(rows, k, y, column, columns[rows.right[k]]) : load(n.fill);
        mean += pick(table_of(n.mean), level);
        spread += pick(table_of(n.spread), level);
    }
    Bytes bin = all(kMeanBins - 1), more = all(kSpreadBins - 1);  // less one for each border above
    for (std::int8_t border : channel.mean_borders) bin += above(all(border), mean);
    for (std::int8_t border : channel.spread_borders) more += above(all(border), spread);
    static_assert(kSpreadBins == 5);
    const Bytes twice = bin + bin;
    store(out, pick_of_64(rows.map, twice + twice + bin + more));
}

}  // namespace

void block_by_sixteen(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                      std::uint8_t* out) noexcept {
    block<strip, kWide>(rows, y, begin, count, out);
}

#endif

#if defined(__x86_64__)
namespace {

// Two neighbours to a look-up: their levels make six bits, and a register holds what each of the 64 adds. Several rows
// share everything but their symbols; their neighbours lie in rows that exist.
template <unsigned Rows>
PERCODEC_AVX512 void strip_avx512(const ContextRows& rows, std::size_t y, std::size_t column,
                                  std::uint8_t* out) noexcept {
    const Contexts::Channel& channel = rows.channel;
    const Contexts::Neighbour* const neighbours = channel.neighbours.data();
    const Contexts::Pair* const pairs = channel.pairs.data();
    const std::size_t many = channel.neighbours.size();
    std::uint64_t inside[2 * kMaxReach + 1];  // all columns of rows that exist, by dy
    for (int dy = -kMaxReach; dy <= kMaxReach; ++dy) {
        inside[dy + kMaxReach] = row_exists(rows, y, dy) ? ~std::uint64_t{0} : 0;
    }
    std::uint64_t columns[2 * kMaxReach + 1];  // that exist, by dx
    for (int dx = -kMaxReach; dx <= kMaxReach; ++dx) {
        const Columns there(rows, column, dx, 64);
        const std::uint64_t before = _bzhi_u64(~std::uint64_t{0}, static_cast<unsigned>(there.to));
        columns[dx + kMaxReach] = before & ~std::uint64_t{0} << there.from;
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
        _mm512_storeu_si512(out + r * rows.width, _mm512_permutexvar_epi8(bin, _mm512_load_si512(rows.map)));
    }
}

}  // namespace

void block_avx512(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                  std::uint8_t* out) noexcept {
    block<strip_avx512<1>, 64>(rows, y, begin, count, out);
}

void lines_avx512(const ContextRows& rows, std::size_t y, std::uint8_t* out) noexcept {
    // From the last strip to the first: what one writes past its row's end is overwritten then.
    for (std::size_t column = (rows.width + 63) / 64 * 64; column > 0; column -= 64)
        strip_avx512<ContextRows::kLines>(rows, y, column - 64, out + column - 64);
}
#endif

}  // namespace percodec
