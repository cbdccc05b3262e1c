#include "percodec/steps.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "byte_reader.hpp"
#include "table_entries.hpp"

namespace percodec {
namespace {

[[noreturn]] void refuse(unsigned plane, const char* why) {
    throw std::invalid_argument("plane " + std::to_string(plane) + " of the entropy model: " + why);
}

void read_row(Reader& reader, unsigned index, StepTables::Plane& plane) {
    constexpr unsigned scale = 1u << kStepBits;
    StepTables::Ends ends;
    StepTables::Found found;
    unsigned start = 0;
    for (unsigned token = 0; token < kStepTokens; ++token) {
        const unsigned end = token + 1 < kStepTokens ? reader.word() : scale;
        if (end <= start || end > scale) refuse(index, "a table does not rise strictly from 0 to 16384");
        ends.slot[token] = static_cast<std::uint16_t>(end);
        found.frequency_start[token] = (end - start) | start << 16;
        const std::uint32_t frequency = end - start;
        const auto reciprocal =
            static_cast<std::uint32_t>(frequency == 1 ? ~std::uint32_t{0} : (std::uint64_t{1} << 32) / frequency);
        plane.divide.push_back({reciprocal, found.frequency_start[token]});
        plane.encode.push_back(encode_entry(start, end - start, kStepBits, 32));
        plane.cost.push_back(static_cast<std::uint16_t>(256 * kStepBits - log2_q8(end - start)));
        start = end;
    }
    plane.ends.push_back(ends);
    plane.found.push_back(found);
}

}  // namespace

StepTables::StepTables(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, bool temporal)
    : channels_(channels), temporal_(temporal) {
    Reader reader(data, size, "the entropy model ends too early");
    heads_ = reader.word();
    const unsigned count = reader.byte();
    if (heads_ < 1 || heads_ > channels || count > kMaxBands) throw std::invalid_argument("no such heads or bands");
    for (unsigned b = 0; b < count; ++b) bands_.push_back(reader.word());
    bands_.push_back(channels);
    bool rise = bands_[0] == heads_;
    for (unsigned b = 0; b < count; ++b) rise = rise && bands_[b] < bands_[b + 1];
    if (!rise) throw std::invalid_argument("bands must rise, from the first channel that is no head");
    const bool banded = count > 0;
    unsigned most = 0;
    for (unsigned index = 0; index < channels + (banded ? 1 : 0); ++index) {
        const bool extents = index == channels, tail = index >= heads_ && !extents;
        Plane plane{};
        plane.levels = reader.byte() + 1;
        plane.offset = static_cast<std::uint8_t>(reader.byte());
        plane.shift = reader.byte();
        const unsigned widths = reader.byte(), places = reader.byte();
        plane.bias = static_cast<std::int16_t>(reader.word());
        if (extents ? plane.levels != count + 1 || plane.offset != 0 || plane.bias != 0 : plane.offset >= plane.levels)
            refuse(index, "levels, offset or bias cannot be");
        if (!extents && plane.levels > most) most = plane.levels;
        if (plane.shift > 7 || widths > kMaxWidth || places > (extents ? 0 : kMaxPlace))
            refuse(index, "too many neighbours, or too large a shift");
        for (unsigned k = 0; k < widths + places; ++k) {
            Near n{};
            n.plane = reader.word();
            n.dy = static_cast<std::int8_t>(reader.byte());
            n.dx = static_cast<std::int8_t>(reader.byte());
            n.weight = static_cast<std::int8_t>(reader.byte());
            const bool own = n.plane == index && n.dy < 0 && !tail;
            const bool earlier = n.plane < (extents ? heads_ : index);
            const bool past = temporal && n.plane > channels && n.plane <= 2 * channels + (banded ? 1 : 0);
            if (!(own || earlier || past || (tail && n.plane == channels)) || std::abs(n.dy) > 1 || std::abs(n.dx) > 1)
                refuse(index, "a neighbour is not known by then and near");
            if (k < widths ? n.weight < 0 || n.weight > 63 : std::abs(n.weight) > 64)
                refuse(index, "a weight is too large");
            (k < widths ? plane.width : plane.place).push_back(n);
        }
        std::memcpy(plane.borders, reader.take(kStepClasses - 1), kStepClasses - 1);
        for (unsigned k = 1; k < kStepClasses - 1; ++k) {
            if (plane.borders[k] < plane.borders[k - 1]) refuse(index, "borders of classes fall");
        }
        for (unsigned step = 0; step < 4; ++step) {
            const unsigned half = 8u >> step;
            for (unsigned found = 0; found < kStepClasses; found += 2 * half)
                plane.middle[step][found] = static_cast<std::uint8_t>(plane.borders[found + half - 1] ^ 0x80);
        }
        plane.digits = tail ? 2 * kStepClasses : kStepClasses;
        for (unsigned k = 0; k < plane.digits + (extents ? 0 : 2); ++k) read_row(reader, index, plane);
        planes_.push_back(std::move(plane));
    }
    if (reader.left()) throw std::invalid_argument("bytes follow the entropy model");
    if (most != levels) throw std::invalid_argument("no channel of the entropy model has the most levels it says");
}

StepRoom::StepRoom(const StepTables& tables, std::size_t rows, std::size_t columns)
    : height(rows),
      width(columns),
      stride((columns + 2 + 2 * kStepPart - 1) / kStepPart * kStepPart),
      size((rows + 2) * stride + 64) {
    const std::size_t all = (tables.temporal() ? 2 * tables.before() : tables.planes()) * size;
    symbols.resize(all);
    values.resize(all);
    for (unsigned p = 0; p < tables.planes(); ++p) {
        std::memset(symbols.data() + p * size, tables.plane(p).offset, size);
        if (!tables.temporal()) continue;
        std::memset(symbols.data() + (tables.before() + p) * size, tables.plane(p).offset, size);
    }
    classes.resize(size);
    places.resize(size);
    must.resize(size);
    for (std::size_t x = 0; x < width; x += kStepPart)
        line.push_back({static_cast<std::uint32_t>(x), width - x < kStepPart ? (1u << (width - x)) - 1 : ~0u});
    parts.resize(height * stride / kStepPart);
    reached.resize(height * width + kStepSlack);
    escapes.resize(height * width);
    runs.reserve((std::size_t{tables.heads()} + 1) * height + tables.channels());
    entries.reset(new std::uint16_t[(3 * std::size_t{tables.channels()} + 1) * height * width + kStepSlack]);
}

StepRooms::StepRooms(StepTables made, std::size_t rows, std::size_t columns)
    : tables(std::move(made)), height(rows), width(columns) {
    idle_.reserve(16);
    idle_.push_back(std::make_unique<StepRoom>(tables, height, width));  // the first call allocates nothing
}

std::unique_ptr<StepRoom> StepRooms::take() noexcept {
    try {
        {
            const std::unique_lock<std::mutex> held(lock_, std::try_to_lock);
            if (held && !idle_.empty()) {
                std::unique_ptr<StepRoom> found = std::move(idle_.back());
                idle_.pop_back();
                return found;
            }
        }
        return std::make_unique<StepRoom>(tables, height, width);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void StepRooms::give(std::unique_ptr<StepRoom> room) noexcept {
    try {
        const std::unique_lock<std::mutex> held(lock_, std::try_to_lock);
        if (held) idle_.push_back(std::move(room));  // else it is gone
    } catch (const std::bad_alloc&) {
    }
}

}  // namespace percodec
