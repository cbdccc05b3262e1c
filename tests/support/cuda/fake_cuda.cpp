// A CUDA driver without a GPU: libcuda.so.1 as far as percodec's providers call it, so that they run as they are, on any computer.
//
// Model. Work put on a stream is queued, not run. Whenever the host waits or asks, the head of a random stream that is ready is run, and
// so on until what was waited for is done: every order that streams and events allow, none that they forbid. Seeded.
// Happens-before is followed with vector clocks; two accesses to one allocation, one of them a write, that nothing orders are a violation,
// even where this run's order happened to be the harmless one. Device addresses carry a tag: reading them on the host faults.
// A graph is captured with its branches; launched, it starts after the stream's earlier work and later work waits for all of it.
// fake_* functions are the test's side: seed, faults, violations, a launch with declared inputs and outputs (a "kernel").

#include "fake_model.hpp"

#define API extern "C" __attribute__((visibility("default")))
#define ENTER(name)                                                \
    std::unique_lock<std::recursive_mutex> hold(world().lock);     \
    if (int failed = enter(name)) return failed;                   \
    World& w = world();                                            \
    (void)w

// -- the driver ----------------------------------------------------------------------------------------------------------------------

API int cuInit(unsigned) { ENTER("cuInit"); return kSuccess; }
API int cuDriverGetVersion(int* v) { *v = 13000; return kSuccess; }
API int cuDeviceGetCount(int* n) { ENTER("cuDeviceGetCount"); *n = 1; return kSuccess; }
API int cuDeviceGet(int* d, int index) { *d = index; return index == 0 ? kSuccess : 101; }
API int cuDeviceGetName(char* name, int size, int) { std::strncpy(name, "fake GPU", size_t(size)); return kSuccess; }
API int cuDeviceTotalMem_v2(size_t* n, int) { *n = world().total; return kSuccess; }
API int cuDeviceComputeCapability(int* major, int* minor, int) { *major = 8; *minor = 7; return kSuccess; }
API int cuDeviceGetAttribute(int* v, int which, int) {
    switch (which) {
        case 18: *v = world().integrated; break;          // INTEGRATED
        case 19: *v = 1; break;                           // CAN_MAP_HOST_MEMORY
        case 75: *v = 8; break;                           // COMPUTE_CAPABILITY_MAJOR
        case 76: *v = 7; break;                           // COMPUTE_CAPABILITY_MINOR
        default: *v = 0;
    }
    return kSuccess;
}
API int cuDevicePrimaryCtxRetain(void** c, int) { ENTER("cuDevicePrimaryCtxRetain"); *c = &world(); return kSuccess; }
API int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
API int cuCtxDetach(void*) { return kSuccess; }
API int cuCtxSetCurrent(void*) { return kSuccess; }
API int cuCtxPushCurrent_v2(void*) { return kSuccess; }
API int cuCtxPopCurrent_v2(void** c) { if (c) *c = &world(); return kSuccess; }
API int cuCtxGetCurrent(void** c) { *c = &world(); return kSuccess; }
API int cuCtxGetDevice(int* d) { *d = 0; return kSuccess; }
API int cuCtxSynchronize() {
    ENTER("cuCtxSynchronize");
    return run_until(hold, [&] { return std::all_of(w.streams.begin(), w.streams.end(), [](auto& p) { return p.second.queue.empty() && !p.second.busy; }); });
}
API int cuCtxGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return kSuccess; }
API int cuGetErrorString(int code, const char** text) { static thread_local std::string s; s = "fake error " + std::to_string(code); *text = s.c_str(); return kSuccess; }
API int cuGetErrorName(int code, const char** text) { return cuGetErrorString(code, text); }

static int take(uint64_t* address, size_t bytes, const char* kind, bool tagged) {
    World& w = world();
    for (auto& [id, c] : w.captures) if (c.thread == std::this_thread::get_id()) { c.broken = true; return kCaptureUnsupported; }
    if (w.used + bytes > w.total) return kOutOfMemory;
    void* p = std::malloc(bytes ? bytes : 1);
    std::memset(p, 0xA5, bytes);
    w.used += bytes;
    auto at = reinterpret_cast<uint64_t>(p);
    w.memory[at] = {std::string(kind) + " memory " + std::to_string(w.next++) + " (" + std::to_string(bytes) + " bytes)", bytes, {-1, 0}, {}};
    *address = tagged ? at | kTag : at;
    return kSuccess;
}
static int give(uint64_t address) {
    World& w = world();
    auto found = w.memory.find(bare(address));
    if (found == w.memory.end()) return kInvalid;
    auto pending = [](const Access& a) { return !complete(a); };
    if (pending(found->second.writer) || std::any_of(found->second.readers.begin(), found->second.readers.end(), pending)) violate("freed while in use: " + found->second.name);
    w.used -= found->second.bytes;
    std::free(host(address));
    w.memory.erase(found);
    return kSuccess;
}
API int cuMemAlloc_v2(uint64_t* p, size_t n) { ENTER("cuMemAlloc"); return take(p, n, "device", true); }
API int cuMemFree_v2(uint64_t p) { ENTER("cuMemFree"); return give(p); }
API int cuMemHostAlloc(void** p, size_t n, unsigned) { ENTER("cuMemHostAlloc"); uint64_t a = 0; int r = take(&a, n, "pinned", false); *p = reinterpret_cast<void*>(a); return r; }
API int cuMemFreeHost(void* p) { ENTER("cuMemFreeHost"); return give(reinterpret_cast<uint64_t>(p)); }
API int cuMemHostGetDevicePointer_v2(uint64_t* d, void* p, unsigned) { *d = reinterpret_cast<uint64_t>(p) | kTag; return kSuccess; }
API int cuMemAllocManaged(uint64_t* p, size_t n, unsigned) { ENTER("cuMemAllocManaged"); return take(p, n, "managed", false); }
API int cuMemGetInfo_v2(size_t* free, size_t* total) { ENTER("cuMemGetInfo"); *free = w.total - w.used; *total = w.total; return kSuccess; }

API int cuStreamCreateWithPriority(void** s, unsigned, int priority) {
    ENTER("cuStreamCreate");
    int id = w.next++;
    w.streams[id].priority = priority;
    *s = reinterpret_cast<void*>(uint64_t(id));
    return kSuccess;
}
API int cuStreamCreate(void** s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
API int cuStreamGetPriority(void* s, int* p) { *p = world().streams[int(uint64_t(s))].priority; return kSuccess; }
API int cuStreamDestroy_v2(void* s) { ENTER("cuStreamDestroy"); run_until(hold, [&] { auto& x = w.streams[int(uint64_t(s))]; return x.queue.empty() && !x.busy; }); w.streams.erase(int(uint64_t(s))); return kSuccess; }
API int cuEventCreate(void** e, unsigned) { ENTER("cuEventCreate"); int id = w.next++; w.events[id]; *e = reinterpret_cast<void*>(uint64_t(id)); return kSuccess; }
API int cuEventDestroy_v2(void* e) { std::unique_lock<std::recursive_mutex> hold(world().lock); world().events.erase(int(uint64_t(e))); return kSuccess; }

static bool known(void* s) { return world().streams.count(int(uint64_t(s))) != 0; }

API int cuMemcpyAsync(uint64_t to, uint64_t from, size_t n, void* s) {
    ENTER("cuMemcpyAsync");
    if (!known(s)) return 400;
    push(int(uint64_t(s)), {[=] { std::memcpy(host(to), host(from), n); }, {{from, n}}, {{to, n}}, {}, 0, 1});
    wander(hold);
    return kSuccess;
}
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void* s) {
    ENTER("cuMemsetD8Async");
    if (!known(s)) return 400;
    push(int(uint64_t(s)), {[=] { std::memset(host(to), value, n); }, {}, {{to, n}}, {}, 0, 2});
    wander(hold);
    return kSuccess;
}
API int cuLaunchHostFunc(void* s, void (*f)(void*), void* data) {
    ENTER("cuLaunchHostFunc");
    if (!known(s)) return 400;
    push(int(uint64_t(s)), {[=] { f(data); }, {}, {}, {}, 0, 3});
    wander(hold);
    return kSuccess;
}
// A kernel: what it reads and writes is declared, what it does is a function of the test.
API int fake_launch(void* s, void (*f)(void*), void* data, const Range* reads, int n_reads, const Range* writes, int n_writes) {
    ENTER("fake_launch");
    if (!known(s)) return 400;
    push(int(uint64_t(s)), {[=] { f(data); }, {reads, reads + n_reads}, {writes, writes + n_writes}, {}, 0, 4});
    wander(hold);
    return kSuccess;
}

API int cuEventRecord(void* e, void* s) {
    ENTER("cuEventRecord");
    if (!known(s) || !w.events.count(int(uint64_t(e)))) return 400;
    int id = int(uint64_t(s)), event = int(uint64_t(e));
    Stream& stream = w.streams[id];
    if (stream.capture) {
        Capture& c = w.captures[stream.capture];
        uint64_t before = c.graph->nodes.size();
        push(id, {nullptr, {}, {}, {}, 0, 5});
        w.events[event].capture = stream.capture;
        w.events[event].node = before;
        return kSuccess;
    }
    uint64_t seq = push(id, {[event] { std::unique_lock<std::recursive_mutex> hold(world().lock); auto f = world().events.find(event); if (f != world().events.end()) f->second.time_ms = world().now_ms; }, {}, {}, {}, 0, 5});
    w.events[event] = {{id, seq}, stream.clock, 0, 0, 0};
    wander(hold);
    return kSuccess;
}
API int cuStreamWaitEvent(void* s, void* e, unsigned) {
    ENTER("cuStreamWaitEvent");
    if (!known(s) || !w.events.count(int(uint64_t(e)))) return 400;
    Stream& stream = w.streams[int(uint64_t(s))];
    Event& event = w.events[int(uint64_t(e))];
    if (event.capture) {
        if (!w.captures.count(event.capture)) return kCaptureInvalidated;
        if (stream.capture && stream.capture != event.capture) return kCaptureInvalidated;
        stream.capture = event.capture;
        w.captures[event.capture].tails[int(uint64_t(s))].push_back(event.node);
        return kSuccess;
    }
    if (stream.capture) { w.captures[stream.capture].broken = true; return kCaptureUnsupported; }
    if (event.at.stream >= 0) { stream.wait.push_back(event.at); join(stream.clock, event.clock); }
    return kSuccess;
}
static int wait_for(std::unique_lock<std::recursive_mutex>& hold, Access at, const Clock& clock) {
    World& w = world();
    for (auto& [id, c] : w.captures) if (c.thread == std::this_thread::get_id()) { c.broken = true; return kCaptureUnsupported; }
    if (w.hang >= 0 && w.hang-- == 0)
        for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
    if (int failed = run_until(hold, [&] { return complete(at); })) return failed;
    join(w.host, clock);
    return kSuccess;
}
API int cuEventSynchronize(void* e) { ENTER("cuEventSynchronize"); Event found = w.events[int(uint64_t(e))]; return wait_for(hold, found.at, found.clock); }
API int cuStreamSynchronize(void* s) { ENTER("cuStreamSynchronize"); Stream& x = w.streams[int(uint64_t(s))]; Clock clock = x.clock; return wait_for(hold, {int(uint64_t(s)), x.enqueued}, clock); }
API int cuEventQuery(void* e) {
    ENTER("cuEventQuery");
    for (uint64_t n = 1 + w.random() % 3; n; --n) step(hold);
    Event& event = w.events[int(uint64_t(e))];
    if (!complete(event.at)) return kNotReady;
    join(w.host, event.clock);
    return kSuccess;
}
API int cuStreamQuery(void* s) { ENTER("cuStreamQuery"); step(hold); Stream& x = w.streams[int(uint64_t(s))]; return x.queue.empty() && !x.busy ? kSuccess : kNotReady; }
API int cuEventElapsedTime_v2(float* ms, void* a, void* b) { ENTER("cuEventElapsedTime"); *ms = float(w.events[int(uint64_t(b))].time_ms - w.events[int(uint64_t(a))].time_ms); return kSuccess; }

API int cuStreamBeginCapture_v2(void* s, int) {
    ENTER("cuStreamBeginCapture");
    if (!known(s)) return 400;
    int id = w.next++, stream = int(uint64_t(s));
    w.captures[id] = {stream, std::make_shared<Graph>(), {}, false, std::this_thread::get_id()};
    w.captures[id].tails[stream] = {};
    w.streams[stream].capture = id;
    return kSuccess;
}
API int cuStreamEndCapture(void* s, void** g) {
    std::unique_lock<std::recursive_mutex> hold(world().lock);
    World& w = world();
    int id = w.streams[int(uint64_t(s))].capture;
    if (!id) return 401;
    Capture c = w.captures[id];
    w.captures.erase(id);
    for (auto& [sid, stream] : w.streams) if (stream.capture == id) stream.capture = 0;
    for (auto& [eid, event] : w.events) if (event.capture == id) event.capture = 0;
    *g = nullptr;
    if (int failed = enter("cuStreamEndCapture")) return failed;
    if (c.broken) return kCaptureInvalidated;
    // Every branch must have come back: all nodes reach the origin's tail.
    std::vector<bool> reached(c.graph->nodes.size());
    std::vector<size_t> todo = c.tails[c.origin];
    while (!todo.empty()) {
        size_t n = todo.back();
        todo.pop_back();
        if (reached[n]) continue;
        reached[n] = true;
        todo.insert(todo.end(), c.graph->nodes[n].after.begin(), c.graph->nodes[n].after.end());
    }
    if (std::find(reached.begin(), reached.end(), false) != reached.end()) return kCaptureUnjoined;
    int graph = w.next++;
    w.graphs[graph] = c.graph;
    *g = reinterpret_cast<void*>(uint64_t(graph));
    return kSuccess;
}
API int cuStreamIsCapturing(void* s, int* status) { *status = world().streams[int(uint64_t(s))].capture ? 1 : 0; return kSuccess; }
API int cuGraphInstantiateWithFlags(void** exec, void* g, unsigned long long) {
    ENTER("cuGraphInstantiate");
    int id = w.next++;
    w.graphs[id] = w.graphs[int(uint64_t(g))];
    *exec = reinterpret_cast<void*>(uint64_t(id));
    return kSuccess;
}
API int cuGraphDestroy(void* g) { std::unique_lock<std::recursive_mutex> hold(world().lock); world().graphs.erase(int(uint64_t(g))); return kSuccess; }
API int cuGraphExecDestroy(void* g) { return cuGraphDestroy(g); }
API int cuGraphLaunch(void* g, void* s) {
    ENTER("cuGraphLaunch");
    if (!known(s) || !w.graphs.count(int(uint64_t(g)))) return 400;
    int id = int(uint64_t(s));
    std::shared_ptr<Graph> graph = w.graphs[int(uint64_t(g))];
    // One stream per node: the graph's own edges are all that orders them.
    uint64_t begin = push(id, {nullptr, {}, {}, {}, 0, 6});
    Clock start = w.streams[id].clock;
    std::vector<int> lane;
    std::vector<Access> all;
    for (const Node& node : graph->nodes) {
        int own = w.next++;
        Stream& stream = w.streams[own];
        stream.clock = start;
        stream.wait = {{id, begin}};
        for (size_t n : node.after) { stream.wait.push_back({lane[n], 1}); join(stream.clock, w.streams[lane[n]].clock); }
        push(own, node.op);
        lane.push_back(own);
        all.push_back({own, 1});
    }
    Stream& back = w.streams[id];
    for (int own : lane) join(back.clock, w.streams[own].clock);
    back.wait = all;
    push(id, {[lane] { std::unique_lock<std::recursive_mutex> hold(world().lock); for (int own : lane) world().streams.erase(own); }, {}, {}, {}, 0, 7});
    wander(hold);
    return kSuccess;
}

// -- the test's side -----------------------------------------------------------------------------------------------------------------

API void fake_reset(uint64_t seed) {
    std::unique_lock<std::recursive_mutex> hold(world().lock);
    World& w = world();
    w.random.seed(seed);
    w.streams.clear(); w.events.clear(); w.graphs.clear(); w.captures.clear(); w.faults.clear(); w.calls.clear(); w.violations.clear(); w.host.clear();
    for (auto& [p, a] : w.memory) std::free(reinterpret_cast<void*>(p));
    w.memory.clear();
    w.sticky = w.integrated = 0; w.used = 0; w.total = 8ull << 30;
}
API void fake_fail(const char* call, int after, int code) { std::unique_lock<std::recursive_mutex> hold(world().lock); world().faults[call] = {after, code}; }
API void fake_device(int integrated, uint64_t total) { world().integrated = integrated; world().total = total; }
API uint64_t fake_calls(const char* call) { std::unique_lock<std::recursive_mutex> hold(world().lock); return world().calls[call]; }
// After so many more host waits, one never returns: the driver itself is stuck.
API void fake_hang(int after) { world().hang = after; }
API uint64_t fake_used() { return world().used; }
API int fake_violations(char* text, int size) {
    std::unique_lock<std::recursive_mutex> hold(world().lock);
    std::string all;
    for (auto& v : world().violations) all += v + "\n";
    std::strncpy(text, all.c_str(), size_t(size) - 1);
    text[size - 1] = 0;
    return int(world().violations.size());
}

// What pycuda links to and nothing here calls.

#include "fake_absent.hpp"

API int cuGetProcAddress_v2(const char* name, void** p, int, unsigned long long, int* status) {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&cuInit), &info);
    static void* self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *p = nullptr;
    for (const char* suffix : {"_v4", "_v3", "_v2", "", "WithFlags"})
        if (!*p) *p = dlsym(self, (std::string(name) + suffix).c_str());
    if (status) *status = *p ? 0 : 1;
    return *p ? kSuccess : kNotFound;
}
API int cuGetProcAddress(const char* name, void** p, int v, unsigned long long f) { return cuGetProcAddress_v2(name, p, v, f, nullptr); }
