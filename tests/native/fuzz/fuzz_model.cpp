// Any bytes as tables: refused, or a model that codes.
#include <algorithm>
#include <stdexcept>

#include "tables.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const percodec::EntropyModel model(data, size);
        if (model.channels() > 64) return 0;  // valid, and slow to try
        const percodec::LatentCoder coder = model.coder(3, 5);
        const std::size_t all = std::size_t{coder.planes()} * coder.height() * coder.width();
        fuzz::Bytes symbols(all), buffer(coder.packet_bound());
        for (std::size_t k = 0; k < symbols.size(); ++k) {
            const auto channel = static_cast<unsigned>(k / (coder.height() * coder.width()) % model.channels());
            symbols[k] = static_cast<std::uint8_t>((k * 7 + size) % model.levels_of(channel));
        }
        fuzz::Bytes decoded = symbols;  // the latent before, where there is one
        std::fill(decoded.end() - static_cast<std::ptrdiff_t>(coder.symbols()), decoded.end(), std::uint8_t{0});
        percodec::PacketHeader header;
        header.lanes = 0;
        std::size_t written = 0;
        if (coder.encode(symbols.data(), &header, percodec::Kernel::automatic, buffer.data(), buffer.size(),
                         &written) != percodec::Status::ok) {
            std::abort();
        }
        const std::uint8_t* packet = buffer.data() + buffer.size() - written;
        if (coder.decode(packet, written, percodec::Kernel::scalar, decoded.data(), &header) != percodec::Status::ok)
            std::abort();
        if (decoded != symbols) std::abort();
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
