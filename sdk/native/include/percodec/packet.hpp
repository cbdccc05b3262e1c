// One coded latent: header, rANS payload, checksums. BITSTREAM.md is the normative text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "percodec/contexts.hpp"
#include "percodec/pairs.hpp"
#include "percodec/rans.hpp"
#include "percodec/status.hpp"
#include "percodec/steps.hpp"

namespace percodec {

constexpr std::size_t kHeaderBytes = 44;
constexpr std::uint8_t kVersion = 0x10;  // major in the high four bits, minor in the low four

struct PacketHeader {
    std::uint8_t version = kVersion;
    std::uint8_t profile = 0;
    std::uint8_t lanes = 1;
    std::uint16_t stream_id = 0;
    std::uint32_t counter = 0;
    std::uint32_t frame_id = 0;
    std::uint64_t timestamp_ns = 0;
    std::uint64_t table_hash = 0;
    std::uint32_t payload_bytes = 0;
    std::uint32_t latent_crc = 0;
};

// Everything about a packet that can be judged without tables: magic, version, flags, lanes, lengths, checksum.
Status parse_header(const std::uint8_t* packet, std::size_t size, PacketHeader* header) noexcept;

// CRC-32C over the shape (three little-endian 32-bit numbers) and the symbols.
std::uint32_t latent_crc(const std::uint8_t* symbols, std::uint32_t channels, std::uint32_t height,
                         std::uint32_t width) noexcept;

// The coder of one latent shape under one set of tables. Immutable: any number of threads may share it.
class LatentCoder {
  public:
    // Throws std::invalid_argument when the shape or the tables are not valid.
    LatentCoder(const std::uint16_t* cdf, std::uint32_t channels, std::uint32_t levels, std::uint32_t height,
                std::uint32_t width, std::uint8_t profile, std::uint64_t table_hash);

    // With contexts: cdf has contexts.contexts() rows per channel.
    LatentCoder(const std::uint16_t* cdf, Contexts contexts, std::uint32_t channels, std::uint32_t levels,
                std::uint32_t height, std::uint32_t width, std::uint8_t profile, std::uint64_t table_hash);

    // Of pairs (profile 3).
    LatentCoder(PairTables pairs, std::uint32_t height, std::uint32_t width, std::uint8_t profile,
                std::uint64_t table_hash);

    // Of uniform steps (profiles 4 and 5). Copies share the room that calls work in.
    LatentCoder(StepTables steps, std::uint32_t height, std::uint32_t width, std::uint8_t profile,
                std::uint64_t table_hash);

    std::size_t symbols() const noexcept { return plane_ * channels_; }

    // Channels of the array that encode() and decode() take: in profiles 2 and 5 the latent before comes first, so
    // twice as many.
    std::uint32_t planes() const noexcept {
        return (contexts_ && contexts_->temporal()) || (steps_ && steps_->tables.temporal()) ? 2 * channels_
                                                                                             : channels_;
    }

    // Bytes that no packet of this shape exceeds.
    std::size_t packet_bound() const noexcept {
        return kHeaderBytes + (steps_ ? step_payload_bound(symbols(), plane_) : payload_bound(symbols()));
    }

    const Tables& tables() const noexcept { return *tables_; }  // of profiles 0, 1 and 2
    std::uint32_t channels() const noexcept { return channels_; }
    std::uint32_t height() const noexcept { return height_; }
    std::uint32_t width() const noexcept { return width_; }

    // Codes symbols uint8 [planes, height, width] into the end of buffer[0, capacity); the packet is the last *size
    // bytes. `header` gives stream_id, counter, frame_id, timestamp_ns and lanes (0: lanes_for() the content); the rest
    // of it is filled in.
    Status encode(const std::uint8_t* symbols, PacketHeader* header, Kernel kernel, std::uint8_t* buffer,
                  std::size_t capacity, std::size_t* size) const noexcept;

    // Verifies and decodes a packet of exactly `size` bytes into the last channels of symbols uint8 [planes, height,
    // width].
    Status decode(const std::uint8_t* packet, std::size_t size, Kernel kernel, std::uint8_t* symbols,
                  PacketHeader* header) const noexcept;

  private:
    std::optional<Tables> tables_;  // or pairs_ or steps_
    std::optional<Contexts> contexts_;
    std::optional<PairTables> pairs_;
    std::shared_ptr<StepRooms> steps_;
    std::uint32_t channels_;
    std::uint32_t height_;
    std::uint32_t width_;
    std::size_t plane_;
    std::uint8_t profile_;
    std::uint64_t table_hash_;
};

}  // namespace percodec
