#include "emu.h"
#include <map>
#include <vector>
#include <random>
#include <cstdio>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
extern "C" void emu_switch(void** save, void* to);
#else
#define EMU_UCONTEXT 1
#include <ucontext.h>
#endif
namespace emu {
constexpr size_t STACK = 128 << 10;
enum St { READY, WARP, BAR, SPIN, DONE };
struct Copy { void* d; const void* s; bool v; };
struct Fiber : Ctx {
  struct BlockState* b; St st; int wline; Op op; unsigned mask; void* slot; int id;
  std::vector<std::vector<Copy>> groups; std::vector<Copy> open;
#ifdef EMU_UCONTEXT
  ucontext_t uc;
#else
  void* sp;
#endif
};
thread_local Ctx* cur;
struct BlockState {
  int first = 0, n = 0, bar_n = 0, bar_line = 0, alive = 0; unsigned arrived[32] = {}; char *dynp = nullptr, *map = nullptr; size_t len = 0;
  std::map<const void*, std::pair<char*, size_t>> stat;
  ~BlockState() { if (map) munmap(map, len + sysconf(_SC_PAGESIZE)); for (auto& s : stat) free(s.second.first); }
};
struct Engine {
  std::vector<Fiber> f; std::vector<BlockState> bs; char* stacks = nullptr; size_t nst = 0; int grid_n = 0, alive = 0;
  void* fn; Entry e; void** args; std::string err; uint64_t switches = 0; std::mt19937 rng;
#ifdef EMU_UCONTEXT
  ucontext_t main;
  void to(Fiber& x) { switches++; cur = &x; swapcontext(&main, &x.uc); }
  void back() { swapcontext(&static_cast<Fiber*>(cur)->uc, &main); }
#else
  void* main;
  void to(Fiber& x) { switches++; cur = &x; emu_switch(&main, x.sp); }
  void back() { emu_switch(&static_cast<Fiber*>(cur)->sp, main); }
#endif
};
static thread_local Engine E;
static Fiber* me() { return static_cast<Fiber*>(cur); }
static void release_bar(BlockState& b) { if (b.bar_n && b.bar_n == b.alive) { for (int i = 0; i < b.n; i++) if (E.f[b.first + i].st == BAR) E.f[b.first + i].st = READY; b.bar_n = 0; } }
static void fail(std::string s) { if (E.err.empty()) E.err = s; }
static void body() {
  E.e(E.fn, E.args);
  if (!me()->open.empty() || !me()->groups.empty()) fail("thread exits with cp.async not waited for");
  me()->st = DONE; E.alive--; me()->b->alive--; release_bar(*me()->b); E.back(); __builtin_trap();
}
void barrier(int line) {
  Fiber* x = me(); BlockState& b = *x->b; x->wline = line;
  if (b.bar_n && b.bar_line != line) fail("__syncthreads at line " + std::to_string(line) + " while others wait at line " + std::to_string(b.bar_line));
  b.bar_line = line; x->st = BAR; b.bar_n++; release_bar(b); E.back();
}
void spin(int line) { me()->wline = line; me()->st = SPIN; E.back(); }   // every polling loop must call this
void warp_op(Op op, unsigned mask, void* slot, Leader leader, int line) {
  Fiber* x = me(); int rel = x->id - x->b->first, base = x->id - (rel & 31), n = std::min<int>(32, x->b->n - (rel & ~31)); unsigned& arr = x->b->arrived[rel >> 5];
  if (n < 32) mask &= (1u << n) - 1;
  x->op = op; x->mask = mask; x->slot = slot; x->wline = line; arr |= 1u << (rel & 31);
  if (!(mask >> (rel & 31) & 1)) fail("lane not in its own mask, line " + std::to_string(line));
  if ((arr & mask) != mask) { x->st = WARP; E.back(); return; }
  void* sl[32]; arr &= ~mask;      // the last lane to arrive does the work of all
  for (int i = 0; i < n; i++) if (mask >> i & 1) {
    Fiber& y = E.f[base + i]; sl[i] = y.slot; y.st = READY;
    if (y.op != op || y.mask != mask || y.wline != line) { fail("warp collective mismatch: lines " + std::to_string(line) + " and " + std::to_string(y.wline)); return; }
  }
  if (leader) leader(sl, mask);
}
static inline float bf(uint32_t r, int hi) { uint32_t u = hi ? r & 0xffff0000u : r << 16; float f; memcpy(&f, &u, 4); return f; }
__attribute__((optimize("O3"))) void mma_leader(void** sl, unsigned) {
  float A[16][16], B[16][8], C[16][8] = {};
  for (int l = 0; l < 32; l++) { auto* s = static_cast<Mma*>(sl[l]); int g = l >> 2, t = l & 3;
    for (int j = 0; j < 4; j++) for (int h = 0; h < 2; h++) A[g + (j & 1) * 8][2 * t + (j >> 1) * 8 + h] = bf(s->a[j], h);
    for (int j = 0; j < 2; j++) for (int h = 0; h < 2; h++) B[2 * t + j * 8 + h][g] = bf(s->b[j], h); }
  for (int m = 0; m < 16; m++) for (int k = 0; k < 16; k++) { float a = A[m][k]; for (int n = 0; n < 8; n++) C[m][n] += a * B[k][n]; }
  for (int l = 0; l < 32; l++) { auto* s = static_cast<Mma*>(sl[l]); int g = l >> 2, t = l & 3; for (int e = 0; e < 4; e++) s->d[e] += C[g + (e >> 1) * 8][2 * t + (e & 1)]; }
}
void mmah_leader(void** sl, unsigned) {
  float A[16][16], B[16][8], C[16][8] = {};
  auto half = [](uint32_t r, int hi) { return __half2float({uint16_t(hi ? r >> 16 : r)}); };
  for (int l = 0; l < 32; l++) { auto* s = static_cast<Mma*>(sl[l]); int g = l >> 2, t = l & 3;
    for (int j = 0; j < 4; j++) for (int h = 0; h < 2; h++) A[g + (j & 1) * 8][2 * t + (j >> 1) * 8 + h] = half(s->a[j], h);
    for (int j = 0; j < 2; j++) for (int h = 0; h < 2; h++) B[2 * t + j * 8 + h][g] = half(s->b[j], h); }
  for (int m = 0; m < 16; m++) for (int k = 0; k < 16; k++) { float a = A[m][k]; for (int n = 0; n < 8; n++) C[m][n] += a * B[k][n]; }
  for (int l = 0; l < 32; l++) { auto* s = static_cast<Mma*>(sl[l]); int g = l >> 2, t = l & 3; for (int e = 0; e < 4; e++) s->d[e] += C[g + (e >> 1) * 8][2 * t + (e & 1)]; }
}
static void ldm(void** sl, bool tr) {
  int n = static_cast<Ldm*>(sl[0])->n; uint16_t m[8][8];
  for (int j = 0; j < n; j++) {
    for (int r = 0; r < 8; r++) { const void* p = static_cast<Ldm*>(sl[j * 8 + r])->row; if (uintptr_t(p) & 15) fail("ldmatrix row not 16-byte aligned"); memcpy(m[r], p, 16); }
    for (int l = 0; l < 32; l++) { int g = l >> 2, t = l & 3; uint32_t lo = tr ? m[2 * t][g] : m[g][2 * t], hi = tr ? m[2 * t + 1][g] : m[g][2 * t + 1]; static_cast<Ldm*>(sl[l])->r[j] = lo | hi << 16; }
  }
}
void ldm_leader(void** s, unsigned) { ldm(s, false); }
void ldmt_leader(void** s, unsigned) { ldm(s, true); }
// Late copies: bytes land only at the wait, the destination is poisoned at the issue.
void cp_async(void* d, const void* s, bool v) {
  if ((uintptr_t(d) | uintptr_t(s)) & 15) fail("cp.async not 16-byte aligned");
  memset(d, 0xff, 16); me()->open.push_back({d, s, v});
}
void cp_commit() { me()->groups.push_back(std::move(me()->open)); me()->open.clear(); }
void cp_wait(int n) {
  auto& g = me()->groups;
  while ((int)g.size() > n) { for (auto& c : g.front()) { if (c.v) memcpy(c.d, c.s, 16); else memset(c.d, 0, 16); } g.erase(g.begin()); }
}
void* static_shared(const void* site, size_t n) {
  auto& p = me()->b->stat[site]; if (!p.first) { p.first = static_cast<char*>(aligned_alloc(128, (n + 127) & ~127ull)); p.second = n; memset(p.first, 0xff, n); } return p.first;
}
void* dyn_shared() { return me()->b->dynp; }
struct K { void* fn; Entry e; };
static std::map<std::string, K>& table() { static std::map<std::string, K> t; return t; }
void reg(const char* n, void* fn, Entry e) { table()[n] = {fn, e}; }
static void prepare(Fiber& x) {
  char* top = E.stacks + (x.id + 1) * STACK;
#ifdef EMU_UCONTEXT
  getcontext(&x.uc); x.uc.uc_stack.ss_sp = top - STACK; x.uc.uc_stack.ss_size = STACK; x.uc.uc_link = nullptr; makecontext(&x.uc, body, 0);
#else
  void** s = reinterpret_cast<void**>(top) - 1; *--s = reinterpret_cast<void*>(&body);  // entry sees rsp % 16 == 8
  s -= 6; memset(s, 0, 48); x.sp = s;
#endif
}
static bool run(int order) {
  int n = E.f.size(); std::vector<std::pair<int, int>> ws;   // warps of all resident blocks
  for (auto& b : E.bs) for (int i = 0; i < b.n; i += 32) ws.push_back({b.first + i, std::min(32, b.n - i)});
  if (order == 1) std::reverse(ws.begin(), ws.end());
  (void)n; uint64_t idle = 0;
  while (E.alive) {
    bool any = false, spun = false;
    if (order >= 2) std::shuffle(ws.begin(), ws.end(), E.rng);
    for (auto& w : ws) {          // run one warp as far as it goes: the greatest skew between warps
      for (bool go = true; go;) { go = false;
        for (int q = 0; q < w.second; q++) { Fiber& x = E.f[w.first + (order == 1 ? w.second - 1 - q : q)]; if (x.st == READY) { E.to(x); go = any = true; if (!E.err.empty()) return false; } }
        if (order >= 2 && (E.rng() & 3) == 0) break; }
    }
    if (!any) { for (auto& x : E.f) if (x.st == SPIN) { x.st = READY; spun = true; } }
    idle = any ? (spun ? idle : 0) : idle + 1;
    if (!any && (!spun || idle > 1000)) { std::string s = spun ? "live-lock:" : "deadlock:"; for (auto& x : E.f) if (x.st != DONE && (x.id < 2 || x.id % 32 == 0)) s += " t" + std::to_string(x.id) + (x.st == BAR ? "@barrier:" : x.st == WARP ? "@warp:" : "@spin:") + std::to_string(x.wline); fail(s); return false; }
  }
  return true;
}
}
using namespace emu;
extern "C" int emu_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned smem, int coop, void** args, int order, char* err, size_t errn) {
  E.err.clear(); auto it = table().find(name); unsigned nt = block[0] * block[1] * block[2];
  if (it == table().end()) fail(std::string("no kernel ") + name);
  else if (nt == 0 || nt > 1024) fail("block size"); else if (smem > (227u << 10)) fail("dynamic shared memory over 227 KiB");
  if (E.err.empty()) {
    E.fn = it->second.fn; E.e = it->second.e; E.args = args; E.rng.seed(order);
    size_t total = size_t(grid[0]) * grid[1] * grid[2], res = coop ? total : 1, all = res * nt, pg = sysconf(_SC_PAGESIZE), len = (smem + pg - 1) / pg * pg;
    if (E.nst < all) { if (E.stacks) munmap(E.stacks, E.nst * STACK); E.stacks = static_cast<char*>(mmap(nullptr, all * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)); E.nst = all; }
    E.f = std::vector<Fiber>(all); E.bs = std::vector<BlockState>(res);
    for (size_t first = 0; first < total; first += res) {
      E.alive = all;
      for (size_t r = 0; r < res; r++) {
        BlockState& b = E.bs[r]; unsigned g = first + r, x = g % grid[0], y = g / grid[0] % grid[1], z = g / grid[0] / grid[1];
        b.first = r * nt; b.n = b.alive = nt; b.bar_n = 0; memset(b.arrived, 0, sizeof b.arrived);
        if (!b.map) { b.map = static_cast<char*>(mmap(nullptr, len + pg, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); b.len = len; mprotect(b.map + len, pg, PROT_NONE); b.dynp = b.map + (len - (smem + 15) / 16 * 16); }  // ends at a guard page
        memset(b.map, 0xff, len); for (auto& s : b.stat) memset(s.second.first, 0xff, s.second.second);
        for (unsigned i = 0; i < nt; i++) { Fiber& f = E.f[b.first + i]; f.b = &b; f.id = b.first + i; f.lane = i & 31; f.st = READY; f.groups.clear(); f.open.clear(); f.bid = {x, y, z}; f.gdim = {grid[0], grid[1], grid[2]}; f.bdim = {block[0], block[1], block[2]}; f.tid = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]}; prepare(f); }
      }
      if (!run(order)) { E.err += " [block " + std::to_string(first) + "]"; goto out; }
    }
  }
out:
  snprintf(err, errn, "%s", E.err.c_str()); return E.err.empty() ? 0 : 1;
}
extern "C" uint64_t emu_switches() { return E.switches; }
