#include "percodec/packet.hpp"

#include <stdexcept>
#include <utility>

#include "percodec/crc32c.hpp"

namespace percodec {
namespace {

// Byte offsets of BITSTREAM.md, section "Header".
constexpr std::size_t kMagic = 0, kVersionAt = 2, kProfile = 3, kLanes = 4, kFlags = 5, kStreamId = 6, kCounter = 8,
                      kFrameId = 12, kTimestamp = 16, kTableHash = 24, kPayloadBytes = 32, kLatentCrc = 36,
                      kPacketCrc = 40;

template <typename T>
void put(std::uint8_t* packet, std::size_t at, T value) noexcept {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        packet[at + i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i));
    }
}

template <typename T>
T get(const std::uint8_t* packet, std::size_t at) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<std::uint64_t>(packet[at + i]) << (8 * i);
    return static_cast<T>(value);
}

std::uint32_t packet_crc(const std::uint8_t* packet, std::size_t size) noexcept {
    return crc32c(packet + kHeaderBytes, size - kHeaderBytes, crc32c(packet, kPacketCrc));
}

std::size_t plane_of(std::uint32_t channels, std::uint32_t height, std::uint32_t width) {
    const std::uint64_t plane = std::uint64_t{height} * width;
    if (height < 1 || width < 1 || height > 65535 || width > 65535) {
        throw std::invalid_argument("a latent has 1 to 65535 rows and columns");
    }
    if (plane > kMaxSymbols || plane * channels > kMaxSymbols) {
        throw std::invalid_argument("a latent holds at most 134217728 symbols");
    }
    return static_cast<std::size_t>(plane);
}

}  // namespace

std::uint32_t latent_crc(const std::uint8_t* symbols, std::uint32_t channels, std::uint32_t height,
                         std::uint32_t width) noexcept {
    std::uint8_t shape[12];
    put(shape, 0, channels);
    put(shape, 4, height);
    put(shape, 8, width);
    return crc32c(symbols, std::size_t{channels} * height * width, crc32c(shape, sizeof(shape)));
}

Status parse_header(const std::uint8_t* packet, std::size_t size, PacketHeader* header) noexcept {
    if (size < kHeaderBytes) return Status::too_short;
    if (packet[kMagic] != 'P' || packet[kMagic + 1] != 'C') return Status::bad_magic;
    header->version = packet[kVersionAt];
    header->profile = packet[kProfile];
    header->lanes = packet[kLanes];
    header->stream_id = get<std::uint16_t>(packet, kStreamId);
    header->counter = get<std::uint32_t>(packet, kCounter);
    header->frame_id = get<std::uint32_t>(packet, kFrameId);
    header->timestamp_ns = get<std::uint64_t>(packet, kTimestamp);
    header->table_hash = get<std::uint64_t>(packet, kTableHash);
    header->payload_bytes = get<std::uint32_t>(packet, kPayloadBytes);
    header->latent_crc = get<std::uint32_t>(packet, kLatentCrc);
    if (header->version >> 4 != kVersion >> 4) return Status::bad_version;
    if (header->payload_bytes != size - kHeaderBytes) return Status::bad_length;
    if (packet_crc(packet, size) != get<std::uint32_t>(packet, kPacketCrc)) return Status::bad_crc;
    if (packet[kFlags] != 0) return Status::bad_flags;
    if (header->lanes < 1 || header->lanes > kMaxLanes) return Status::bad_lanes;
    return Status::ok;
}

LatentCoder::LatentCoder(const std::uint16_t* cdf, std::uint32_t channels, std::uint32_t levels, std::uint32_t height,
                         std::uint32_t width, std::uint8_t profile, std::uint64_t table_hash)
    : tables_(std::in_place, cdf, channels, levels),
      channels_(channels),
      height_(height),
      width_(width),
      plane_(plane_of(channels, height, width)),
      profile_(profile),
      table_hash_(table_hash) {}

LatentCoder::LatentCoder(const std::uint16_t* cdf, Contexts contexts, std::uint32_t channels, std::uint32_t levels,
                         std::uint32_t height, std::uint32_t width, std::uint8_t profile, std::uint64_t table_hash)
    : tables_(std::in_place, cdf, channels * contexts.contexts(), levels, contexts.contexts()),
      contexts_(std::move(contexts)),
      channels_(channels),
      height_(height),
      width_(width),
      plane_(plane_of(channels, height, width)),
      profile_(profile),
      table_hash_(table_hash) {}

LatentCoder::LatentCoder(PairTables pairs, std::uint32_t height, std::uint32_t width, std::uint8_t profile,
                         std::uint64_t table_hash)
    : pairs_(std::move(pairs)),
      channels_(pairs_->channels()),
      height_(height),
      width_(width),
      plane_(plane_of(channels_, height, width)),
      profile_(profile),
      table_hash_(table_hash) {}

LatentCoder::LatentCoder(StepTables steps, std::uint32_t height, std::uint32_t width, std::uint8_t profile,
                         std::uint64_t table_hash)
    : channels_(steps.channels()),
      height_(height),
      width_(width),
      plane_(plane_of(channels_, height, width)),
      profile_(profile),
      table_hash_(table_hash) {
    steps_ = std::make_shared<StepRooms>(std::move(steps), height, width);
}

Status LatentCoder::encode(const std::uint8_t* symbols, PacketHeader* header, Kernel kernel, std::uint8_t* buffer,
                           std::size_t capacity, std::size_t* size) const noexcept {
    if (capacity < kHeaderBytes) return Status::no_space;
    symbols += (planes() - channels_) * plane_;
    unsigned lanes = header->lanes;
    std::uint8_t* const end = buffer + capacity;
    std::uint8_t* const room = buffer + kHeaderBytes;
    std::uint8_t* payload = nullptr;
    Status coded;
    if (contexts_) {
        coded = encode_payload(*tables_, *contexts_, symbols, channels_, height_, width_, &lanes, kernel, room, end,
                               &payload);
    } else if (steps_) {
        coded = encode_payload(*steps_, symbols, &lanes, kernel, room, end, &payload);
    } else if (pairs_) {
        if (lanes == 0) lanes = lanes_for_pairs(*pairs_, symbols, plane_, kernel);
        coded = encode_payload(*pairs_, symbols, plane_, lanes, kernel, room, end, &payload);
    } else {
        if (!measure(*tables_, symbols, plane_, lanes == 0 ? &lanes : nullptr)) return Status::symbol_out_of_range;
        coded = encode_payload(*tables_, symbols, plane_, lanes, kernel, room, end, &payload);
    }
    if (coded != Status::ok) return coded;
    header->lanes = static_cast<std::uint8_t>(lanes);

    header->version = kVersion;
    header->profile = profile_;
    header->table_hash = table_hash_;
    header->payload_bytes = static_cast<std::uint32_t>(end - payload);
    header->latent_crc = latent_crc(symbols, channels(), height_, width_);
    std::uint8_t* const packet = payload - kHeaderBytes;
    packet[kMagic] = 'P';
    packet[kMagic + 1] = 'C';
    packet[kVersionAt] = header->version;
    packet[kProfile] = header->profile;
    packet[kLanes] = header->lanes;
    packet[kFlags] = 0;
    put(packet, kStreamId, header->stream_id);
    put(packet, kCounter, header->counter);
    put(packet, kFrameId, header->frame_id);
    put(packet, kTimestamp, header->timestamp_ns);
    put(packet, kTableHash, header->table_hash);
    put(packet, kPayloadBytes, header->payload_bytes);
    put(packet, kLatentCrc, header->latent_crc);
    *size = static_cast<std::size_t>(end - packet);
    put(packet, kPacketCrc, packet_crc(packet, *size));
    return Status::ok;
}

Status LatentCoder::decode(const std::uint8_t* packet, std::size_t size, Kernel kernel, std::uint8_t* symbols,
                           PacketHeader* header) const noexcept {
    symbols += (planes() - channels_) * plane_;
    const Status parsed = parse_header(packet, size, header);
    if (parsed != Status::ok) return parsed;
    if (header->profile != profile_) return Status::bad_profile;
    if (header->table_hash != table_hash_) return Status::wrong_tables;
    const std::uint8_t* const payload = packet + kHeaderBytes;
    const std::size_t left = size - kHeaderBytes;
    Status decoded;
    if (contexts_) {
        decoded = decode_payload(*tables_, *contexts_, payload, left, channels_, height_, width_, header->lanes, kernel,
                                 symbols);
    } else if (steps_) {
        decoded = decode_payload(*steps_, payload, left, header->lanes, kernel, symbols);
    } else if (pairs_) {
        decoded = decode_payload(*pairs_, payload, left, plane_, header->lanes, kernel, symbols);
    } else {
        decoded = decode_payload(*tables_, payload, left, plane_, header->lanes, kernel, symbols);
    }
    if (decoded != Status::ok) return decoded;
    if (latent_crc(symbols, channels(), height_, width_) != header->latent_crc) return Status::bad_latent_crc;
    return Status::ok;
}

}  // namespace percodec
