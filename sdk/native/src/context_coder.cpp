// Profiles 1 and 2: rows begin at lane 0, and the row of the tables is chosen symbol by symbol. Portable kernels: lane
// counts 1, 2, 4 and 8 keep their states in registers; any other count works too.
#include "kernels.hpp"

namespace percodec {
namespace {

// A latent's shape.
struct Shape {
    unsigned channels;
    std::size_t height, width;
};

// Contexts come in blocks, and a block begins at lane 0 where the lane count divides it.
constexpr std::size_t kBlock = ContextRows::kBlock;

// Lanes == 0: the count is `count`, known at run time only. `rows` times `step` is context * levels.
template <unsigned Lanes>
std::uint8_t* encode(const Tables& tables, unsigned contexts, const std::uint8_t* rows, unsigned step,
                     const std::uint8_t* symbols, const Shape& shape, unsigned count, std::uint32_t* states,
                     std::uint8_t* begin, std::uint8_t* next) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];

    for (unsigned c = shape.channels; c-- > 0;) {
        const Tables::Encode* const channel = tables.encode(c * contexts);
        for (std::size_t y = shape.height; y-- > 0;) {
            const std::size_t line = (std::size_t{c} * shape.height + y) * shape.width;
            const std::uint8_t* const s = symbols + line;
            const std::uint8_t* const row = rows + line;
            const auto put = [&](std::size_t at, std::uint32_t& state) {
                state = encode_symbol(channel[row[at] * step + s[at]], state, next);
            };
            if (static_cast<std::size_t>(next - begin) < 2 * shape.width) return nullptr;
            std::size_t i = shape.width;
            for (unsigned lane = static_cast<unsigned>(i % lanes); lane > 0; --lane) put(--i, x[lane - 1]);
            for (; i > 0; i -= lanes) {
                for (unsigned k = lanes; k-- > 0;) put(i - lanes + k, x[k]);
            }
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return next;
}

// The rows of a channel, each a table of all slots. Of ten contexts they are larger than a first cache.
struct BySlot {
    const std::uint32_t* slots;
    BySlot(const Tables& tables, unsigned row) noexcept : slots(tables.decode(row)) {}
    std::uint8_t symbol(unsigned context, std::uint32_t& x, const std::uint8_t*& next) const noexcept {
        return decode_symbol(slots + std::size_t{context} * kProbabilityScale, x, next);
    }
};

// The rows of a channel, each at most `Thresholds` numbers to compare with: for small alphabets less work than to wait
// for a table.
template <unsigned Thresholds>
struct BySearch {
    const Tables::Vector* rows;
    BySearch(const Tables& tables, unsigned row) noexcept : rows(tables.vector(row)) {}
    std::uint8_t symbol(unsigned context, std::uint32_t& x, const std::uint8_t*& next) const noexcept {
        const Tables::Vector& row = rows[context];
        const std::uint32_t slot = x & (kProbabilityScale - 1);
        unsigned level = 0;
        for (unsigned k = 0; k < Thresholds; ++k) level += slot >= row.threshold[k] ? 1u : 0u;
        decode_step<kPrecisionBits, kStateLow>(row.frequency_start[level], slot, x, next);
        return static_cast<std::uint8_t>(level);
    }
};

template <unsigned Lanes, typename Rows>
bool decode(const Tables& tables, const Contexts& contexts, const Shape& shape, unsigned count, Kernel kernel,
            std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];
    std::uint8_t rows[kBlock];

    for (unsigned c = 0; c < shape.channels; ++c) {
        const Rows channel(tables, c * contexts.contexts());
        const ContextRows before(contexts, c, symbols, shape.height, shape.width, kernel, 1);
        for (std::size_t y = 0; y < shape.height; ++y) {
            std::uint8_t* line = symbols + (std::size_t{c} * shape.height + y) * shape.width;
            for (std::size_t first = 0; first < shape.width; first += kBlock) {
                const std::size_t many = shape.width - first < kBlock ? shape.width - first : kBlock;
                before.block(y, first, many, rows);
                std::uint8_t* s = line + first;
                std::size_t i = 0;
                const auto some = [&](std::size_t lane, std::size_t end) {  // part of a group
                    if (!words.ready()) return false;
                    for (; i < end; ++i, ++lane) s[i] = channel.symbol(rows[i], x[lane], words.next);
                    return true;
                };
                const std::size_t begun = first % lanes, open = begun ? lanes - begun : 0;
                if (open && !some(begun, open < many ? open : many)) return false;
                std::uint32_t y[Lanes ? Lanes : kMaxLanes];  // in registers, while groups are whole
                for (unsigned k = 0; k < lanes; ++k) y[k] = x[k];
                for (; many - i >= lanes; i += lanes) {
                    if (!words.ready()) return false;
                    const std::uint8_t* next = words.next;
                    for (unsigned k = 0; k < lanes; ++k) s[i + k] = channel.symbol(rows[i + k], y[k], next);
                    words.next = next;
                }
                for (unsigned k = 0; k < lanes; ++k) x[k] = y[k];
                if (i < many && !some(0, many)) return false;
            }
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return true;
}

template <typename Rows>
bool decode_lanes(const Tables& tables, const Contexts& contexts, const Shape& shape, unsigned lanes, Kernel kernel,
                  std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept {
    switch (lanes) {
        case 1:
            return decode<1, Rows>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 2:
            return decode<2, Rows>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 4:
            return decode<4, Rows>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 8:
            return decode<8, Rows>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        default:
            return decode<0, Rows>(tables, contexts, shape, lanes, kernel, states, words, symbols);
    }
}

}  // namespace

void mark_contexts(const Contexts& contexts, const std::uint8_t* symbols, unsigned channels, std::size_t height,
                   std::size_t width, Kernel kernel, unsigned scale, std::uint8_t* rows) noexcept {
    for (unsigned c = 0; c < channels; ++c) {
        const ContextRows before(contexts, c, symbols, height, width, kernel, scale);
        std::size_t y = 0;
        while (y < height) {
            const std::size_t done = before.lines(y, rows);
            rows += done * width;
            y += done;
        }
    }
}

unsigned lanes_for_contexts(const Tables& tables, unsigned contexts, const std::uint8_t* rows, unsigned step,
                            const std::uint8_t* symbols, unsigned channels, std::size_t plane, Kernel kernel) noexcept {
#if defined(__x86_64__)
    const bool wide = step == 1 && tables.wide(0) != nullptr && kernel_allowed(kernel, Kernel::avx512);
#else
    static_cast<void>(kernel);
#endif
    std::uint64_t total = 0;
    unsigned lanes = 1;
    for (unsigned c = 0; c < channels && lanes < kMaxLanes;
         ++c) {  // at most lanes, more content cannot change the answer
        const std::uint16_t* const cost = tables.cost(c * contexts);
        const std::size_t at = c * plane;
#if defined(__x86_64__)
        if (wide) {
            constexpr std::size_t kPart = std::size_t{1} << 18;  // of symbols: their cost fits 32 bits
            for (std::size_t i = 0; i < plane; i += kPart) {
                total += cost_avx512(cost, rows + at + i, symbols + at + i, plane - i < kPart ? plane - i : kPart);
            }
        } else
#endif
            for (std::size_t i = at; i < at + plane; ++i) total += cost[rows[i] * step + symbols[i]];
        lanes = lanes_for((total + 255) / 256 / 8, kContextLanes);
    }
    return lanes;
}

std::uint8_t* encode_contexts(const Tables& tables, unsigned contexts, const std::uint8_t* rows, unsigned step,
                              const std::uint8_t* symbols, unsigned channels, std::size_t height, std::size_t width,
                              unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    const Shape shape{channels, height, width};
    switch (lanes) {
        case 1:
            return encode<1>(tables, contexts, rows, step, symbols, shape, lanes, states, begin, next);
        case 2:
            return encode<2>(tables, contexts, rows, step, symbols, shape, lanes, states, begin, next);
        case 4:
            return encode<4>(tables, contexts, rows, step, symbols, shape, lanes, states, begin, next);
        case 8:
            return encode<8>(tables, contexts, rows, step, symbols, shape, lanes, states, begin, next);
        default:
            return encode<0>(tables, contexts, rows, step, symbols, shape, lanes, states, begin, next);
    }
}

bool decode_contexts(const Tables& tables, const Contexts& contexts, unsigned channels, std::size_t height,
                     std::size_t width, unsigned lanes, Kernel kernel, std::uint32_t* states, WordReader& words,
                     std::uint8_t* symbols) noexcept {
    if (tables.levels() <= 6)
        return decode_lanes<BySearch<5>>(tables, contexts, {channels, height, width}, lanes, kernel, states, words,
                                         symbols);
    if (tables.levels() <= kSearchedLevels)
        return decode_lanes<BySearch<7>>(tables, contexts, {channels, height, width}, lanes, kernel, states, words,
                                         symbols);
    return decode_lanes<BySlot>(tables, contexts, {channels, height, width}, lanes, kernel, states, words, symbols);
}

}  // namespace percodec
