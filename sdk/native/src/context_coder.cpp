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

template <unsigned Lanes>
bool decode(const Tables& tables, const Contexts& contexts, const Shape& shape, unsigned count, Kernel kernel,
            std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];
    std::uint8_t rows[kBlock];

    for (unsigned c = 0; c < shape.channels; ++c) {
        const std::uint32_t* const channel = tables.decode(c * contexts.contexts());
        const ContextRows before(contexts, c, symbols, shape.height, shape.width, kernel);
        for (std::size_t y = 0; y < shape.height; ++y) {
            std::uint8_t* line = symbols + (std::size_t{c} * shape.height + y) * shape.width;
            for (std::size_t first = 0; first < shape.width; first += kBlock) {
                const std::size_t many = shape.width - first < kBlock ? shape.width - first : kBlock;
                before.block(y, first, many, 1, rows);
                std::uint8_t* s = line + first;
                std::size_t i = 0;
                unsigned lane = static_cast<unsigned>(first % lanes);
                while (i < many) {
                    if (!words.ready()) return false;
                    const std::uint8_t* next = words.next;
                    if (lane == 0 && many - i >= lanes) {
                        for (unsigned k = 0; k < lanes; ++k) {
                            s[i + k] =
                                decode_symbol(channel + std::size_t{rows[i + k]} * kProbabilityScale, x[k], next);
                        }
                        i += lanes;
                    } else {
                        for (; lane < lanes && i < many; ++lane, ++i) {
                            s[i] = decode_symbol(channel + std::size_t{rows[i]} * kProbabilityScale, x[lane], next);
                        }
                        lane = lane == lanes ? 0 : lane;
                    }
                    words.next = next;
                }
            }
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return true;
}

}  // namespace

void mark_contexts(const Contexts& contexts, const std::uint8_t* symbols, unsigned channels, std::size_t height,
                   std::size_t width, Kernel kernel, unsigned scale, std::uint8_t* rows) noexcept {
    for (unsigned c = 0; c < channels; ++c) {
        const ContextRows before(contexts, c, symbols, height, width, kernel);
        for (std::size_t y = 0; y < height; ++y) {
            for (std::size_t first = 0; first < width; first += kBlock) {
                const std::size_t count = width - first < kBlock ? width - first : kBlock;
                before.block(y, first, count, scale, rows);
                rows += count;
            }
        }
    }
}

unsigned lanes_for_contexts(const Tables& tables, unsigned contexts, const std::uint8_t* rows, unsigned step,
                            const std::uint8_t* symbols, unsigned channels, std::size_t plane, Kernel kernel) noexcept {
#if defined(__x86_64__)
    const bool wide =
        step == 1 && tables.wide(0) != nullptr && kernel != Kernel::scalar && kernel_supported(Kernel::avx512);
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
        lanes = lanes_for((total + 255) / 256 / 8, true);
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
    const Shape shape{channels, height, width};
    switch (lanes) {
        case 1:
            return decode<1>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 2:
            return decode<2>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 4:
            return decode<4>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        case 8:
            return decode<8>(tables, contexts, shape, lanes, kernel, states, words, symbols);
        default:
            return decode<0>(tables, contexts, shape, lanes, kernel, states, words, symbols);
    }
}

}  // namespace percodec
