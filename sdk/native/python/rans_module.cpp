// percodec.sdk.codec._rans: the C++ core for Python. Buffers belong to the caller, sizes are checked here, and the
// interpreter lock is released while symbols are coded. Results are status numbers: packet.py has the words.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "percodec/crc32c.hpp"
#include "percodec/entropy_model.hpp"
#include "percodec/latent_statistics.hpp"
#include "percodec/packet.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace {

using Cdf = nb::ndarray<const std::uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Symbols = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using SymbolsOut = nb::ndarray<std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<std::uint32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Borders = nb::ndarray<const std::uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Scratch = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The bytes of any contiguous bytes-like object, held while this lives.
class Bytes {
  public:
    explicit Bytes(nb::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    }
    ~Bytes() { PyBuffer_Release(&view_); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;

    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view_.len); }

  private:
    Py_buffer view_;
};

nb::tuple fields(const percodec::PacketHeader& h) {
    return nb::make_tuple(h.version, h.profile, h.lanes, h.stream_id, h.counter, h.frame_id, h.timestamp_ns,
                          h.table_hash, h.payload_bytes, h.latent_crc);
}

template <typename Array>
void check_shape(const Array& symbols, const percodec::LatentCoder& coder) {
    if (symbols.shape(0) != coder.planes() || symbols.shape(1) != coder.height() || symbols.shape(2) != coder.width()) {
        throw nb::value_error("symbols have another shape than the coder");
    }
}

nb::object encode(const percodec::LatentCoder& coder, const Symbols& symbols, const Scratch& scratch,
                  std::uint16_t stream_id, std::uint32_t counter, std::uint32_t frame_id, std::uint64_t timestamp_ns,
                  std::uint8_t lanes, percodec::Kernel kernel) {
    check_shape(symbols, coder);
    percodec::PacketHeader header;
    header.stream_id = stream_id;
    header.counter = counter;
    header.frame_id = frame_id;
    header.timestamp_ns = timestamp_ns;
    header.lanes = lanes;
    std::size_t size = 0;
    percodec::Status status;
    {
        nb::gil_scoped_release unlocked;
        status = coder.encode(symbols.data(), &header, kernel, scratch.data(), scratch.size(), &size);
    }
    if (status != percodec::Status::ok) return nb::int_(static_cast<int>(status));
    return nb::bytes(scratch.data() + (scratch.size() - size), size);
}

nb::tuple decode(const percodec::LatentCoder& coder, nb::handle packet, const SymbolsOut& symbols,
                 percodec::Kernel kernel) {
    check_shape(symbols, coder);
    const Bytes bytes(packet);
    percodec::PacketHeader header;
    percodec::Status status;
    {
        nb::gil_scoped_release unlocked;
        status = coder.decode(bytes.data(), bytes.size(), kernel, symbols.data(), &header);
    }
    return nb::make_tuple(static_cast<int>(status), fields(header));
}

nb::tuple parse_header(nb::handle packet) {
    const Bytes bytes(packet);
    percodec::PacketHeader header;
    percodec::Status status;
    {
        nb::gil_scoped_release unlocked;
        status = percodec::parse_header(bytes.data(), bytes.size(), &header);
    }
    return nb::make_tuple(static_cast<int>(status), fields(header));
}

std::uint32_t crc32c(nb::handle data, std::uint32_t crc) {
    const Bytes bytes(data);
    nb::gil_scoped_release unlocked;
    return percodec::crc32c(bytes.data(), bytes.size(), crc);
}

void latent_statistics(const Symbols& symbols, const Counts& counts) {
    if (counts.shape(0) != symbols.shape(0) || counts.shape(1) < 3 || counts.shape(1) > 256 + 2 ||
        symbols.size() == 0) {
        throw nb::value_error("counts are [channels, levels + 2] of symbols [channels, height, width]");
    }
    nb::gil_scoped_release unlocked;
    percodec::latent_statistics(symbols.data(), symbols.shape(0), symbols.shape(1), symbols.shape(2),
                                counts.shape(1) - 2, counts.data());
}

void latent_statistics_below(const Symbols& symbols, const Borders& borders, const Counts& counts) {
    if (counts.shape(0) != symbols.shape(0) || borders.shape(0) != symbols.shape(0) ||
        counts.shape(1) != borders.shape(1) + 2 || symbols.size() == 0) {
        throw nb::value_error(
            "counts are [channels, B + 2] of symbols [channels, height, width], borders [channels, B]");
    }
    nb::gil_scoped_release unlocked;
    percodec::latent_statistics_below(symbols.data(), symbols.shape(0), symbols.shape(1), symbols.shape(2),
                                      borders.data(), borders.shape(1), counts.data());
}

}  // namespace

NB_MODULE(_rans, m) {
    m.doc() = "The C++ core of percodec.sdk.codec.";
#ifdef NDEBUG
    // A thread that waits when the interpreter ends, for a camera that never answers or on a parent process, is never
    // unwound: what it holds stays. nanobind would report that as leaked instances, types and functions.
    nb::set_leak_warnings(false);
#endif

    nb::enum_<percodec::Kernel>(m, "Kernel")
        .value("AUTOMATIC", percodec::Kernel::automatic)
        .value("SCALAR", percodec::Kernel::scalar)
        .value("AVX2", percodec::Kernel::avx2)
        .value("AVX512", percodec::Kernel::avx512)
        .value("NEON", percodec::Kernel::neon);
    m.def("kernel_supported", &percodec::kernel_supported, "kernel"_a);

    nb::list names;
    for (unsigned k = 0; k < percodec::kStatuses; ++k) {
        names.append(percodec::status_name(static_cast<percodec::Status>(k)));
    }
    m.attr("STATUS_NAMES") = nb::tuple(names);
    m.attr("HEADER_BYTES") = percodec::kHeaderBytes;
    m.attr("VERSION") = percodec::kVersion;
    m.attr("MAX_LANES") = percodec::kMaxLanes;

    m.def("crc32c", &crc32c, "data"_a, "crc"_a = 0);
    m.def("parse_header", &parse_header, "packet"_a);
    m.def("latent_statistics", &latent_statistics, "symbols"_a.noconvert(), "counts"_a.noconvert());
    m.def("latent_statistics_below", &latent_statistics_below, "symbols"_a.noconvert(), "borders"_a.noconvert(),
          "counts"_a.noconvert());

    m.def(
        "coder_of",
        [](const nb::bytes& model, std::uint32_t height, std::uint32_t width) {
            const auto* data = reinterpret_cast<const std::uint8_t*>(model.c_str());
            return percodec::EntropyModel(data, model.size()).coder(height, width);
        },
        "model"_a, "height"_a, "width"_a);
    nb::class_<percodec::LatentCoder>(m, "LatentCoder")
        .def(
            "__init__",
            [](percodec::LatentCoder* self, const Cdf& cdf, std::uint32_t height, std::uint32_t width,
               std::uint8_t profile, std::uint64_t table_hash, nb::bytes contexts, std::uint32_t rows) {
                const std::size_t channels = rows ? cdf.shape(0) / rows : 0;
                if (channels < 1 || channels > percodec::kMaxChannels || cdf.shape(0) % rows ||
                    rows > percodec::kMaxContexts || cdf.shape(1) < 1 + percodec::kMinLevels ||
                    cdf.shape(1) > 1 + percodec::kMaxLevels) {
                    throw nb::value_error(
                        "cdf must be [1..1024 channels, 3..257], with contexts as many rows for each channel");
                }
                const auto count = static_cast<std::uint32_t>(channels),
                           levels = static_cast<std::uint32_t>(cdf.shape(1) - 1);
                if (profile == 3) {
                    std::uint32_t side = 2;
                    while (side * side < levels) ++side;
                    if (side * side != levels) throw nb::value_error("pairs need a square number of entries");
                    new (self) percodec::LatentCoder(percodec::PairTables(cdf.data(), count, side), height, width,
                                                     profile, table_hash);
                    return;
                }
                if (contexts.size() == 0) {
                    new (self) percodec::LatentCoder(cdf.data(), count, levels, height, width, profile, table_hash);
                    return;
                }
                percodec::Contexts made(reinterpret_cast<const std::uint8_t*>(contexts.c_str()), contexts.size(), count,
                                        levels, rows, profile == 2);
                new (self) percodec::LatentCoder(cdf.data(), std::move(made), count, levels, height, width, profile,
                                                 table_hash);
            },
            "cdf"_a.noconvert(), "height"_a, "width"_a, "profile"_a, "table_hash"_a, "contexts"_a = nb::bytes("", 0),
            "rows"_a = 1)
        .def_prop_ro("packet_bound", &percodec::LatentCoder::packet_bound)
        .def("encode", &encode, "symbols"_a.noconvert(), "scratch"_a.noconvert(), "stream_id"_a, "counter"_a,
             "frame_id"_a, "timestamp_ns"_a, "lanes"_a, "kernel"_a = percodec::Kernel::automatic)
        .def("decode", &decode, "packet"_a, "symbols"_a.noconvert(), "kernel"_a = percodec::Kernel::automatic);
}
