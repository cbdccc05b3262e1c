#include "percodec/pairs.hpp"

#include <stdexcept>
#include <string>

#include "pair_kernels.hpp"
#include "payload.hpp"
#include "table_entries.hpp"

namespace percodec {
namespace {

// `Lanes` of them, or 0: `count`, a multiple of Block. A block of states is held in registers.
template <unsigned Lanes, unsigned Block>
std::uint8_t* encode(const PairTables& tables, const std::uint8_t* symbols, const PairSteps& steps, unsigned count,
                     std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next, std::uint8_t* highest) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];
    *highest = highest_of(symbols, steps.all());

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Encode* row = tables.channel(channel).encode;
        const std::uint8_t* s = symbols + std::size_t{channel} * steps.plane;
        const std::size_t size = steps.of(channel);
        const std::size_t rest = size / 2 % lanes, whole = size / 2 - rest;
        if (static_cast<std::size_t>(next - begin) < 2 * rest + 2 * (size % 2)) return nullptr;
        if (size % 2) x[rest] = encode_symbol(row[half_pair(s[size - 1])], x[rest], next);
        for (std::size_t lane = rest; lane-- > 0;)
            x[lane] = encode_symbol(row[pair_at(s, whole + lane)], x[lane], next);
        for (std::size_t group = whole; group > 0; group -= lanes) {
            if (static_cast<std::size_t>(next - begin) < 2 * std::size_t{lanes}) return nullptr;
            const std::uint8_t* pair = s + 2 * (group - lanes);
            for (unsigned at = lanes; at > 0; at -= Block) {
                std::uint32_t y[Block];
                for (unsigned k = 0; k < Block; ++k) y[k] = x[at - Block + k];
                for (unsigned k = Block; k-- > 0;) y[k] = encode_symbol(row[pair_at(pair, at - Block + k)], y[k], next);
                for (unsigned k = 0; k < Block; ++k) x[at - Block + k] = y[k];
            }
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return next;
}

template <unsigned Lanes, unsigned Block>
bool decode(const PairTables& tables, const PairSteps& steps, unsigned count, std::uint32_t* states, WordReader& words,
            std::uint8_t* symbols) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];

    for (unsigned index = 0; index < tables.channels(); ++index) {
        const PairTables::Channel& channel = tables.channel(index);
        const auto take = [&](std::uint32_t& state, const std::uint8_t*& next, std::uint8_t* to) {
            const unsigned pair = decode_pair(channel, state, next);
            to[0] = static_cast<std::uint8_t>(pair / kPairLevels);
            to[1] = static_cast<std::uint8_t>(pair % kPairLevels);
        };
        const std::size_t size = steps.of(index), rest = size / 2 % lanes;
        for (std::size_t groups = size / 2 / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned at = 0; at < lanes; at += Block) {
                std::uint32_t y[Block];
                for (unsigned k = 0; k < Block; ++k) y[k] = x[at + k];
                for (unsigned k = 0; k < Block; ++k) take(y[k], next, symbols + 2 * (at + k));
                for (unsigned k = 0; k < Block; ++k) x[at + k] = y[k];
            }
            words.next = next;
            symbols += 2 * lanes;
        }
        if (!words.ready()) return false;
        for (std::size_t lane = 0; lane < rest; ++lane) take(x[lane], words.next, symbols + 2 * lane);
        symbols += 2 * rest;
        if (size % 2) {
            std::uint8_t both[2];
            take(x[rest], words.next, both);
            *symbols++ = both[0];
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return true;
}

// A state that begins at 2^16 has room for a number of 16 bits: the lane's last pairs, in the last channel, are its
// digits.
class Tail {
  public:
    Tail(unsigned levels, std::size_t plane, unsigned lanes) noexcept
        : levels_(levels), lanes_(lanes), plane_(plane), end_((plane + 1) / 2), begin_(end_) {
        for (const std::uint32_t base = levels * levels; limit_ * base <= kPairStateLow && begin_ >= lanes;) {
            begin_ -= lanes;
            limit_ *= base;
        }
    }

    // Symbols of the last channel before the tail: those that take steps.
    std::size_t begin() const noexcept { return begin_ == end_ ? plane_ : 2 * begin_; }

    // symbols: of the last channel.
    void put(const std::uint8_t* symbols, std::uint32_t* states) const noexcept {
        std::uint32_t numbers[kMaxLanes] = {};
        for (std::size_t pair = end_; pair-- > begin_;) {
            const unsigned second = 2 * pair + 1 < plane_ ? symbols[2 * pair + 1] : 0;
            const unsigned digit = (symbols[2 * pair] * levels_ + second) % (levels_ * levels_);
            numbers[pair % lanes_] = numbers[pair % lanes_] * levels_ * levels_ + digit;
        }
        for (unsigned lane = 0; lane < lanes_; ++lane) states[lane] += numbers[lane];
    }

    // Leaves states without their numbers; as they are where one is no number of such pairs.
    void take(std::uint32_t* states, std::uint8_t* symbols) const noexcept {
        std::uint32_t numbers[kMaxLanes];
        for (unsigned lane = 0; lane < lanes_; ++lane) {
            numbers[lane] = states[lane] - kPairStateLow;
            if (numbers[lane] >= limit_) return;
        }
        for (std::size_t pair = begin_; pair < end_; ++pair) {
            std::uint32_t& number = numbers[pair % lanes_];
            const auto second = static_cast<std::uint8_t>(number % levels_);
            if (2 * pair + 1 < plane_) {
                symbols[2 * pair + 1] = second;
            } else if (second != 0) {
                return;
            }
            number /= levels_;
            symbols[2 * pair] = static_cast<std::uint8_t>(number % levels_);
            number /= levels_;
        }
        for (unsigned lane = 0; lane < lanes_; ++lane) states[lane] = kPairStateLow;
    }

  private:
    unsigned levels_, lanes_;
    std::size_t plane_, end_, begin_;  // pairs, but for the plane
    std::uint32_t limit_ = 1;          // of a lane's number
};

#if defined(PERCODEC_PLANES)
bool planes_allowed(Kernel wanted) noexcept {
    return kernel_allowed(wanted, Kernel::avx2) || kernel_allowed(wanted, Kernel::neon);
}
#endif

template <unsigned Lanes, unsigned Block>
PairKernels plain() noexcept {
    return {encode<Lanes, Block>, decode<Lanes, Block>};
}

}  // namespace

PairKernels pair_kernels(unsigned lanes, unsigned levels, Kernel wanted) noexcept {
#if defined(__x86_64__)
    if (lanes >= 16 && kernel_allowed(wanted, Kernel::avx512)) return {encode_pairs_avx512, decode_pairs_avx512};
#endif
#if defined(PERCODEC_PLANES)
    const PairKernels planes = pairs_in_planes(lanes, levels);
    if (planes.encode != nullptr && planes_allowed(wanted)) return planes;
#endif
    static_cast<void>(levels), static_cast<void>(wanted);
    return lanes == 8       ? plain<8, 8>()
           : lanes % 8 == 0 ? plain<0, 8>()
           : lanes == 4     ? plain<4, 4>()
           : lanes == 2     ? plain<2, 2>()
           : lanes == 1     ? plain<1, 1>()
                            : plain<0, 1>();
}

PairTables::PairTables(const std::uint16_t* cdf, unsigned channels, unsigned levels) : levels_(levels) {
    if (channels < 1 || channels > kMaxChannels) throw std::invalid_argument("channels must be 1..1024");
    if (levels < kMinLevels || levels > kPairLevels) throw std::invalid_argument("pairs are of 2..8 levels");
    const unsigned count = levels * levels;
    channels_.resize(channels);
    for (unsigned index = 0; index < channels; ++index) {
        const std::uint16_t* row = cdf + std::size_t{index} * (count + 1);
        bool valid = row[0] == 0 && row[count] == kPairScale;
        for (unsigned k = 0; k < count; ++k) valid = valid && row[k] < row[k + 1];
        if (!valid) throw std::invalid_argument("channel " + std::to_string(index) + " does not rise from 0 to 16384");
        Channel& c = channels_[index];
        for (unsigned k = 0; k < kPairLevels; ++k) {
            c.first[k] = k + 1 < levels ? row[(k + 1) * levels] : kPairScale;
            for (unsigned first = 0; first < 32; ++first) {
                c.second[k][first] = first < levels && k + 1 < levels ? row[first * levels + k + 1] : kPairScale;
            }
        }
        for (unsigned pair = 0; pair < kPairs; ++pair) {
            const unsigned first = pair / kPairLevels, second = pair % kPairLevels;
            const unsigned entry = first < levels && second < levels ? first * levels + second : 0;
            const std::uint32_t start = row[entry], frequency = row[entry + 1] - start;
            c.frequency[pair] = static_cast<std::uint16_t>(frequency);
            c.start[pair] = static_cast<std::uint16_t>(start);
            // 2^32 / frequency; for 1 what keeps the kernels' sums within 16 bits and their error within 3.
            const std::uint32_t reciprocal =
                frequency == 1 ? 0xFFFFAAAAu : static_cast<std::uint32_t>((std::uint64_t{1} << 32) / frequency);
            c.reciprocal_low[pair] = static_cast<std::uint16_t>(reciprocal);
            c.reciprocal_high[pair] = static_cast<std::uint16_t>(reciprocal >> 16);
            c.frequency_start[pair] = frequency | start << 16;
            c.cost[pair] = static_cast<std::uint16_t>(256 * kPairBits - log2_q8(frequency));
            c.encode[pair] = encode_entry(start, frequency, kPairBits, 32);
            if (entry != 0 || pair == 0) {
                for (std::uint32_t slot = start; slot < start + frequency; ++slot)
                    c.pair_of[slot] = static_cast<std::uint8_t>(pair);
            }
        }
    }
}

unsigned lanes_for_pairs(const PairTables& tables, const std::uint8_t* symbols, std::size_t plane,
                         Kernel kernel) noexcept {
    std::uint64_t total = 0;  // 1/256 bit; at most 2^26 pairs of 14 bits
    unsigned found = 1;
    // With kMaxLanes more content cannot change the answer.
    for (unsigned index = 0; index < tables.channels() && found < kMaxLanes; ++index) {
        const PairTables::Channel& channel = tables.channel(index);
        const std::uint8_t* s = symbols + std::size_t{index} * plane;
        std::size_t pair = 0;
#if defined(PERCODEC_PLANES)
        if (planes_allowed(kernel)) {
            total += cost_pairs_planes(channel, s, plane / 32, tables.levels());
            pair = plane / 32 * 16;
        }
#endif
        for (; pair < plane / 2; ++pair) total += channel.cost[pair_at(s, pair)];
        if (plane % 2) total += channel.cost[half_pair(s[plane - 1])];
        found = lanes_for((total + 255) / 256 / 8);
    }
    static_cast<void>(kernel);
    return found;
}

Status encode_payload(const PairTables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                      Kernel kernel, std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept {
    const EncodePairs run = pair_kernels(lanes, tables.levels(), kernel).encode;
    const std::uint8_t* const last = symbols + (tables.channels() - 1) * plane;
    std::uint8_t highest = 0, highest_of_tail = 0;
    const auto code = [&](std::uint32_t* states, std::uint8_t* first, std::uint8_t* next) {
        const Tail tail(tables.levels(), plane, lanes);
        highest_of_tail = highest_of(last + tail.begin(), plane - tail.begin());
        tail.put(last, states);
        return run(tables, symbols, {plane, tail.begin(), tables.channels() - 1}, lanes, states, first, next, &highest);
    };
    const Status written = write_payload(lanes, kPairStateLow, begin, end, payload, code);
    const bool levels_only = highest < tables.levels() && highest_of_tail < tables.levels();
    return written == Status::ok && !levels_only ? Status::symbol_out_of_range : written;
}

Status decode_payload(const PairTables& tables, const std::uint8_t* payload, std::size_t size, std::size_t plane,
                      unsigned lanes, Kernel kernel, std::uint8_t* symbols) noexcept {
    const DecodePairs run = pair_kernels(lanes, tables.levels(), kernel).decode;
    const auto code = [&](std::uint32_t* states, WordReader& words) {
        const Tail tail(tables.levels(), plane, lanes);
        if (!run(tables, {plane, tail.begin(), tables.channels() - 1}, lanes, states, words, symbols)) return false;
        tail.take(states, symbols + (tables.channels() - 1) * plane);
        return true;
    };
    return read_payload(payload, size, lanes, kPairStateLow, pair_group_bytes(lanes), code);
}

}  // namespace percodec
