// Profile 4. An encoder first goes forward, from plane to plane, and writes down every step: then what it codes is one
// list, which is coded from its end. A decoder goes forward alone.
#include <cstring>

#include "kernels.hpp"
#include "payload.hpp"
#include "percodec/steps.hpp"
#include "step_kernels.hpp"

namespace percodec {
namespace {

constexpr unsigned kMust = kStepClasses;

// A room for as long as a call takes.
class Taken {
  public:
    explicit Taken(StepRooms& rooms) noexcept : rooms_(rooms), room_(rooms.take()) {}
    ~Taken() {
        if (room_) rooms_.give(std::move(room_));
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    StepRoom* get() noexcept { return room_.get(); }

  private:
    StepRooms& rooms_;
    std::unique_ptr<StepRoom> room_;
};

// |symbol - offset| of a row.
void set_values(const StepTables::Plane& plane, const std::uint8_t* symbols, std::size_t count,
                std::uint8_t* values) noexcept {
    const std::uint8_t offset = plane.offset;
    for (std::size_t i = 0; i < count; ++i) {
        values[i] = static_cast<std::uint8_t>(symbols[i] > offset ? symbols[i] - offset : offset - symbols[i]);
    }
}

// Goes through the bands of a latent whose extents are known: keeps the places that the band reaches, and where
// something is still to come.
class Bands {
  public:
    Bands(const StepTables& tables, StepRoom& room) noexcept : tables_(tables), room_(room) {
        extents_ = room.symbols.data() + tables.channels() * room.size;
    }

    // Band 0, 1, ...: `must` is kMust where the band is the last with something, and nothing of it is known yet.
    std::size_t enter(unsigned band) noexcept {
        std::uint32_t* const reached = room_.reached.data();
        std::size_t kept = 0;
        const auto look = [&](std::size_t at) {
            reached[kept] = static_cast<std::uint32_t>(at);
            kept += extents_[at] > band ? 1u : 0u;
        };
        if (band == 0) {
            for (std::size_t y = 0; y < room_.height; ++y) {
                const std::size_t line = room_.at(y, 0);
                for (std::size_t x = 0; x < room_.width; ++x) look(line + x);
            }
        } else {
            for (std::size_t k = 0; k < count_; ++k) look(reached[k]);
        }
        std::uint8_t* const must = room_.must.data();
        for (std::size_t at = 0; at < room_.size; ++at)
            must[at] = static_cast<std::uint8_t>(extents_[at] == band + 1 ? kMust : 0);
        return count_ = kept;
    }

    // Rows and places of all that is reached, as few blocks as that takes. `then` is told of each block.
    template <typename Then>
    void contexts(const StepContexts& contexts, Then then) const noexcept {
        constexpr std::size_t kPart = 32;
        const std::uint32_t* const reached = room_.reached.data();
        for (std::size_t k = 0; k < count_;) {
            const std::size_t first = reached[k];
            std::size_t end = first + kPart;
            for (++k; k < count_ && reached[k] < end + kPart; ++k) {
                while (reached[k] >= end) end += kPart;
            }
            contexts.block(room_, first, end - first);
            then(first, end - first);
        }
    }

    // The symbols of a tail are there: where one is not 0, nothing more must come.
    void known(unsigned channel) const noexcept {
        const std::uint8_t* const values = room_.values.data() + channel * room_.size;
        std::uint8_t* const must = room_.must.data();
        for (std::size_t at = 0; at < room_.size; ++at) must[at] = values[at] ? std::uint8_t{0} : must[at];
    }

  private:
    const StepTables& tables_;
    StepRoom& room_;
    const std::uint8_t* extents_;
    std::size_t count_ = 0;
};

// --- encoder

// Copies symbols into the room, and makes their values and extents. False where a symbol is no level.
bool fill(const StepTables& tables, const std::uint8_t* symbols, StepRoom& room) noexcept {
    const unsigned channels = tables.channels(), heads = tables.heads();
    const bool banded = tables.planes() > channels;
    std::uint8_t* const extents = room.symbols.data() + channels * room.size;
    unsigned band = 0;
    for (unsigned c = 0; c < channels; ++c) {
        const StepTables::Plane& plane = tables.plane(c);
        if (c >= heads && c >= tables.bands()[band + 1]) ++band;
        std::uint8_t highest = 0;
        for (std::size_t y = 0; y < room.height; ++y) {
            const std::size_t at = room.at(y, 0);
            const std::uint8_t* const s = symbols + (std::size_t{c} * room.height + y) * room.width;
            std::uint8_t* const values = room.values.data() + c * room.size + at;
            for (std::size_t x = 0; x < room.width; ++x) highest = s[x] > highest ? s[x] : highest;
            std::memcpy(room.symbols.data() + c * room.size + at, s, room.width);
            set_values(plane, s, room.width, values);
            if (!banded) continue;
            std::uint8_t* const e = extents + at;
            if (c < heads) {
                if (c == 0) std::memset(e, 0, room.width);
                continue;
            }
            const auto reached = static_cast<std::uint8_t>(band + 1);
            for (std::size_t x = 0; x < room.width; ++x) e[x] = values[x] ? reached : e[x];
        }
        if (highest >= plane.levels) return false;
    }
    if (banded) {
        std::uint8_t* const values = room.values.data() + channels * room.size;
        for (std::size_t y = 0; y < room.height; ++y)
            std::memcpy(values + room.at(y, 0), extents + room.at(y, 0), room.width);
    }
    return true;
}

// Drafts of `count` symbols from `at` on: row * 16 + token.
void draft(const StepContexts& contexts, unsigned plane, StepRoom& room, std::size_t at, std::size_t count) noexcept {
    const std::uint8_t* const s = room.symbols.data() + plane * room.size + at;
    const std::uint8_t* const places = room.places.data() + at;
    const std::uint8_t* const rows = room.classes.data() + at;
    std::uint16_t* const out = room.drafts.data() + at;
    const auto one = [&](std::size_t i, std::uint8_t place) {
        const auto shifted = static_cast<std::uint8_t>(s[i] - place + kHalf);
        out[i] = static_cast<std::uint16_t>(rows[i] * kStepTokens + (shifted < kEscape ? shifted : kEscape));
    };
    if (contexts.has_place) {
        for (std::size_t i = 0; i < count; ++i) one(i, places[i]);
    } else {
        for (std::size_t i = 0; i < count; ++i) one(i, contexts.constant);
    }
}

// Writes down the steps of a whole latent.
class Steps {
  public:
    Steps(const StepTables& tables, StepRoom& room, Kernel kernel) noexcept
        : tables_(tables), room_(room), kernel_(kernel), next_(room.entries.get()) {}

    void write() noexcept {
        room_.runs.clear();
        for (unsigned p = 0; p < tables_.heads(); ++p) lines(p);
        if (tables_.planes() == tables_.channels()) return;
        lines(tables_.channels());
        Bands bands(tables_, room_);
        for (unsigned band = 0; band + 1 < tables_.bands().size(); ++band) {
            const std::size_t count = bands.enter(band);
            for (unsigned p = tables_.bands()[band]; p < tables_.bands()[band + 1]; ++p) tail(p, bands, count);
        }
    }

  private:
    void lines(unsigned p) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        const bool extents = p == tables_.channels();
        const std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        for (std::size_t y = 0; y < room_.height; ++y) {
            const std::size_t at = room_.at(y, 0);
            contexts.block(room_, at, room_.width);
            if (extents) {
                for (std::size_t i = at; i < at + room_.width; ++i)
                    *next_++ = static_cast<std::uint16_t>(room_.classes[i] * kStepTokens + s[i]);
                room_.runs.push_back({p, static_cast<std::uint32_t>(room_.width), 0});
                continue;
            }
            draft(contexts, p, room_, at, room_.width);
            run(p, contexts, room_.width, [at](std::size_t k) { return at + k; });
        }
    }

    void tail(unsigned p, const Bands& bands, std::size_t count) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        bands.contexts(contexts, [&](std::size_t at, std::size_t many) { draft(contexts, p, room_, at, many); });
        const std::uint32_t* const reached = room_.reached.data();
        run(p, contexts, count, [reached](std::size_t k) { return reached[k]; });
        bands.known(p);
    }

    template <typename PlaceOf>
    void run(unsigned p, const StepContexts& contexts, std::size_t count, PlaceOf place) noexcept {
        unsigned escapes = 0;
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint16_t entry = room_.drafts[place(k)];
            next_[k] = entry;
            escapes += entry % kStepTokens == kEscape ? 1u : 0u;
        }
        const std::uint16_t* const tokens = next_;
        next_ += count;
        const std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        for (std::size_t k = 0, left = escapes; left > 0; ++k) {
            if (tokens[k] % kStepTokens != kEscape) continue;
            const std::size_t i = place(k);
            const unsigned difference = (s[i] - (contexts.has_place ? room_.places[i] : contexts.constant)) & 255u;
            *next_++ = static_cast<std::uint16_t>(contexts.plane.digits * kStepTokens + difference / 16);
            *next_++ = static_cast<std::uint16_t>((contexts.plane.digits + 1) * kStepTokens + difference % 16);
            --left;
        }
        room_.runs.push_back({p, static_cast<std::uint32_t>(count), 2 * escapes});
    }

    const StepTables& tables_;
    StepRoom& room_;
    const Kernel kernel_;
    std::uint16_t* next_;
};

unsigned lanes_of(const StepTables& tables, const StepRoom& room) noexcept {
    std::uint64_t total = 0;
    unsigned lanes = 1;
    const std::uint16_t* entry = room.entries.get();
    for (const StepRoom::Run& run : room.runs) {
        const std::uint16_t* const cost = tables.plane(run.plane).cost.data();
        for (const std::uint16_t* const end = entry + run.tokens + run.digits; entry < end; ++entry)
            total += cost[*entry];
        lanes = lanes_for((total + 255) / 256 / 8, true);
        if (lanes == kMaxLanes) break;  // more content cannot change the answer
    }
    return lanes;
}

std::uint8_t* encode(const StepTables& tables, const StepRoom& room, unsigned lanes, std::uint32_t* states,
                     std::uint8_t* begin, std::uint8_t* next) noexcept {
    std::size_t left = 0;
    for (const StepRoom::Run& run : room.runs) left += run.tokens + run.digits;
    if (static_cast<std::size_t>(next - begin) < 2 * left) return nullptr;
    const std::uint16_t* entry = room.entries.get() + left;
    for (std::size_t r = room.runs.size(); r-- > 0;) {
        const StepRoom::Run& run = room.runs[r];
        const Tables::Encode* const encode = tables.plane(run.plane).encode.data();
        for (const std::uint32_t count : {run.digits, run.tokens}) {
            unsigned lane = count % lanes;
            for (std::uint32_t k = count; k > 0; --k) {
                lane = lane ? lane - 1 : lanes - 1;
                states[lane] = encode_symbol(encode[*--entry], states[lane], next);
            }
        }
    }
    return next;
}

// --- decoder

class Decoder {
  public:
    Decoder(const StepTables& tables, StepRoom& room, unsigned lanes, std::uint32_t* states, WordReader& words,
            Kernel kernel) noexcept
        : tables_(tables), room_(room), lanes_(lanes), states_(states), words_(words), kernel_(kernel) {}

    // False when the words ended early.
    bool run() noexcept {
        for (unsigned p = 0; p < tables_.heads(); ++p) {
            if (!lines(p)) return false;
        }
        if (tables_.planes() == tables_.channels()) return true;
        if (!lines(tables_.channels())) return false;
        Bands bands(tables_, room_);
        for (unsigned band = 0; band + 1 < tables_.bands().size(); ++band) {
            const std::size_t count = bands.enter(band);
            for (unsigned p = tables_.bands()[band]; p < tables_.bands()[band + 1]; ++p) {
                if (!tail(p, bands, count)) return false;
            }
        }
        return true;
    }

  private:
    bool tokens(const StepTokens& run, std::size_t* escapes) noexcept {
#if defined(__x86_64__)
        if (lanes_ >= 8 && kernel_allowed(kernel_, Kernel::avx2))
            return step_tokens_avx2(run, lanes_, states_, words_, escapes);
#endif
        return step_tokens_plain(run, lanes_, states_, words_, escapes);
    }

    // Of a run's escapes: symbols that are 8 above their place.
    bool digits(const StepTokens& run, std::size_t escapes) noexcept {
        std::size_t k = 0;
        for (std::size_t done = 0; done < 2 * escapes;) {
            if (!words_.ready()) return false;
            const std::size_t many = 2 * escapes - done < lanes_ ? 2 * escapes - done : lanes_;
            const std::uint8_t* next = words_.next;
            for (std::size_t lane = 0; lane < many; ++lane, ++done) {
                const unsigned digit = take_step(run.plane, run.plane.digits + done % 2, states_[lane], next);
                if (done % 2 == 0) {
                    high_ = digit;
                    continue;
                }
                std::size_t i = run.at(k++);
                while (static_cast<std::uint8_t>(run.symbols[i] - run.place(i)) != kEscape - kHalf) i = run.at(k++);
                run.symbols[i] = static_cast<std::uint8_t>(run.place(i) + high_ * 16 + digit);
            }
            words_.next = next;
        }
        return true;
    }

    bool lines(unsigned p) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        const bool extents = p == tables_.channels();
        std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        const std::uint8_t* const places = contexts.has_place ? room_.places.data() : nullptr;
        const std::uint8_t constant = extents ? std::uint8_t{kHalf} : contexts.constant;  // an extent is its token
        for (std::size_t y = 0; y < room_.height; ++y) {
            const std::size_t at = room_.at(y, 0);
            contexts.block(room_, at, room_.width);
            std::size_t escapes = 0;
            const StepTokens run{contexts.plane, room_.classes.data(), places, constant, nullptr, at, room_.width, s};
            if (!tokens(run, &escapes) || (!extents && !digits(run, escapes))) return false;
            set_values(contexts.plane, s + at, room_.width, room_.values.data() + p * room_.size + at);
        }
        return true;
    }

    bool tail(unsigned p, const Bands& bands, std::size_t count) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        std::memset(s, contexts.plane.offset, room_.size);
        bands.contexts(contexts, [](std::size_t, std::size_t) {});
        const std::uint8_t* const places = contexts.has_place ? room_.places.data() : nullptr;
        std::size_t escapes = 0;
        const StepTokens run{
            contexts.plane, room_.classes.data(), places, contexts.constant, room_.reached.data(), 0, count, s};
        if (!tokens(run, &escapes) || !digits(run, escapes)) return false;
        set_values(contexts.plane, s, room_.size, room_.values.data() + p * room_.size);
        bands.known(p);
        return true;
    }

    const StepTables& tables_;
    StepRoom& room_;
    const unsigned lanes_;
    std::uint32_t* const states_;
    WordReader& words_;
    const Kernel kernel_;
    unsigned high_ = 0;  // the digit before
};

// What was decoded, out of the room. False where a symbol is no level, or an extent no number of bands.
bool copy_out(const StepTables& tables, const StepRoom& room, std::uint8_t* symbols) noexcept {
    for (unsigned p = 0; p < tables.planes(); ++p) {
        std::uint8_t highest = 0;
        for (std::size_t y = 0; y < room.height; ++y) {
            const std::uint8_t* const s = room.symbols.data() + p * room.size + room.at(y, 0);
            for (std::size_t x = 0; x < room.width; ++x) highest = s[x] > highest ? s[x] : highest;
            if (p == tables.channels()) continue;
            std::memcpy(symbols, s, room.width);
            symbols += room.width;
        }
        if (highest >= tables.plane(p).levels) return false;
    }
    return true;
}

}  // namespace

Status encode_payload(StepRooms& rooms, const std::uint8_t* symbols, unsigned* lanes, Kernel kernel,
                      std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept {
    Taken taken(rooms);
    StepRoom* const room = taken.get();
    if (room == nullptr) return Status::no_space;
    if (!fill(rooms.tables, symbols, *room)) return Status::symbol_out_of_range;
    Steps(rooms.tables, *room, kernel).write();
    if (*lanes == 0) *lanes = lanes_of(rooms.tables, *room);
    const unsigned count = *lanes;
    return write_payload(count, kStepStateLow, begin, end, payload,
                         [&](std::uint32_t* states, std::uint8_t* from, std::uint8_t* next) {
                             return encode(rooms.tables, *room, count, states, from, next);
                         });
}

Status decode_payload(StepRooms& rooms, const std::uint8_t* payload, std::size_t size, unsigned lanes, Kernel kernel,
                      std::uint8_t* symbols) noexcept {
    Taken taken(rooms);
    StepRoom* const room = taken.get();
    if (room == nullptr) return Status::no_space;
    const Status status = read_payload(payload, size, lanes, kStepStateLow, 2 * std::size_t{lanes},
                                       [&](std::uint32_t* states, WordReader& words) {
                                           return Decoder(rooms.tables, *room, lanes, states, words, kernel).run();
                                       });
    if (status != Status::ok) return status;
    return copy_out(rooms.tables, *room, symbols) ? Status::ok : Status::symbol_out_of_range;
}

}  // namespace percodec
