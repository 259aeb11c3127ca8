// A stand-in for NVIDIA's driver, so that what calls it can be run without one: memory is the host's, everything is done
// at once, and one kernel (add_rows) does what it does on a device. What no program may do is an error as it is there:
// calls without a context, work put on a stream that captures, copies outside of what is allocated.
//
// Variables of the environment: FAKE_CUDA_VERSION (12040), FAKE_CUDA_CAPABILITY (90), FAKE_CUDA_MEMORY (bytes that are
// free), FAKE_CUDA_FAILS (NAME=CODE: what this call answers), FAKE_CUDA_LOG (a file that gets the calls' names).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

typedef struct Block { struct Block *next; uint64_t address, bytes; } Block;
typedef struct { char name[64]; } Kernel;
typedef struct { Kernel *kernel; uint64_t words[3]; int overlaps; } Node;
typedef struct { Node nodes[64]; int count, broken; } Graph;

static _Thread_local int entered;
static Block *blocks;
static uint64_t used;
static Graph *capturing;

static long number(const char *name, long otherwise) {
  const char *value = getenv(name);
  return value ? atol(value) : otherwise;
}

static int begin(const char *name, int needs_context) {
  const char *log = getenv("FAKE_CUDA_LOG"), *fails = getenv("FAKE_CUDA_FAILS");
  if (log) {
    FILE *file = fopen(log, "a");
    if (file) { fprintf(file, "%s\n", name); fclose(file); }
  }
  if (fails && !strncmp(fails, name, strlen(name)) && fails[strlen(name)] == '=') return atoi(fails + strlen(name) + 1);
  return needs_context && !entered ? INVALID_CONTEXT : SUCCESS;
}

// In front of what is put on a stream and cannot be captured.
static int on_stream(const char *name) {
  int answer = begin(name, 1);
  if (!answer && capturing) { capturing->broken = 1; answer = CAPTURE_UNSUPPORTED; }
  return answer;
}

static int inside(uint64_t address, uint64_t bytes) {
  for (Block *block = blocks; block; block = block->next)
    if (address >= block->address && address + bytes <= block->address + block->bytes) return 1;
  return 0;
}

#define CALL(name, ...) int name(__VA_ARGS__) { int answer = begin(#name, 1); if (answer) return answer;
#define FREE_CALL(name, ...) int name(__VA_ARGS__) { int answer = begin(#name, 0); if (answer) return answer;
#define STREAM_CALL(name, ...) int name(__VA_ARGS__) { int answer = on_stream(#name); if (answer) return answer;
#define END return SUCCESS; }

FREE_CALL(cuInit, unsigned flags) if (flags) return INVALID_VALUE; END
FREE_CALL(cuDriverGetVersion, int *version) *version = (int)number("FAKE_CUDA_VERSION", 12040); END
FREE_CALL(cuDeviceGetCount, int *count) *count = 1; END
FREE_CALL(cuDeviceGet, int *device, int ordinal) if (ordinal) return INVALID_VALUE; *device = 0; END
FREE_CALL(cuDeviceGetName, char *name, int len, int device) (void)device; snprintf(name, (size_t)len, "Fake"); END
FREE_CALL(cuDeviceTotalMem_v2, size_t *bytes, int device) (void)device; *bytes = 1 << 30; END
FREE_CALL(cuDeviceGetAttribute, int *value, int attribute, int device)
  (void)device;
  long capability = number("FAKE_CUDA_CAPABILITY", 90);
  *value = attribute == 75 ? (int)capability / 10 : attribute == 76 ? (int)capability % 10
         : attribute == 97 ? 232448 : attribute == 115 ? 1 : attribute == 16 ? 132 : attribute == 13 ? 1980000 : -1;
END
FREE_CALL(cuGetErrorName, int error, const char **name)
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
  if (!*name) return INVALID_VALUE;
END
FREE_CALL(cuGetErrorString, int error, const char **text)
  *text = error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : NULL;
  if (!*text) return INVALID_VALUE;
END
FREE_CALL(cuDevicePrimaryCtxRetain, void **context, int device) (void)device; *context = &used; END
FREE_CALL(cuDevicePrimaryCtxRelease_v2, int device) (void)device; if (blocks) return INVALID_VALUE; END
FREE_CALL(cuCtxSetCurrent, void *context) entered = context == &used; END

CALL(cuStreamCreate, void **stream, unsigned flags) if (flags != 1) return INVALID_VALUE; *stream = &blocks; END
STREAM_CALL(cuStreamSynchronize, void *stream) if (stream != &blocks) return INVALID_VALUE; END
CALL(cuStreamDestroy_v2, void *stream) if (stream != &blocks) return INVALID_VALUE; END
CALL(cuEventCreate, void **event, unsigned flags) if (flags != 2) return INVALID_VALUE; *event = malloc(1); END
STREAM_CALL(cuEventRecord, void *event, void *stream) if (!event || stream != &blocks) return INVALID_VALUE; END
CALL(cuEventSynchronize, void *event) if (!event) return INVALID_VALUE; END
CALL(cuEventDestroy_v2, void *event) free(event); END

CALL(cuDeviceGetDefaultMemPool, void **pool, int device) (void)device; *pool = &used; END
CALL(cuMemPoolSetAttribute, void *pool, int attribute, void *value)
  if (pool != &used || attribute != 4 || *(uint64_t *)value != UINT64_MAX) return INVALID_VALUE;
END
CALL(cuMemPoolGetAttribute, void *pool, int attribute, uint64_t *value)
  if (pool != &used) return INVALID_VALUE;
  *value = attribute == 7 ? used : attribute == 5 ? used + (uint64_t)number("FAKE_CUDA_KEPT", 0) : UINT64_MAX;
END
CALL(cuMemPoolTrimTo, void *pool, size_t keep) (void)keep; if (pool != &used) return INVALID_VALUE; END
CALL(cuMemGetInfo_v2, size_t *free, size_t *total) *total = 1 << 30; *free = *total - used; END
STREAM_CALL(cuMemAllocAsync, uint64_t *address, size_t bytes, void *stream)
  if (stream != &blocks || !bytes) return INVALID_VALUE;
  if (used + bytes > (uint64_t)number("FAKE_CUDA_MEMORY", 1 << 30)) return OUT_OF_MEMORY;
  Block *block = malloc(sizeof *block);
  *block = (Block){blocks, (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256), bytes};
  memset((void *)block->address, 0xff, bytes);
  blocks = block;
  used += bytes;
  *address = block->address;
END
STREAM_CALL(cuMemFreeAsync, uint64_t address, void *stream)
  (void)stream;
  for (Block **at = &blocks; *at; at = &(*at)->next)
    if ((*at)->address == address) {
      Block *block = *at;
      *at = block->next;
      used -= block->bytes;
      free((void *)address);
      free(block);
      return SUCCESS;
    }
  return INVALID_VALUE;
}
CALL(cuMemHostAlloc, void **memory, size_t bytes, unsigned flags) if (flags) return INVALID_VALUE; *memory = malloc(bytes); END
CALL(cuMemFreeHost, void *memory) free(memory); END
STREAM_CALL(cuMemcpyHtoDAsync_v2, uint64_t to, const void *from, size_t bytes, void *stream)
  (void)stream;
  if (!inside(to, bytes)) return INVALID_VALUE;
  memcpy((void *)to, from, bytes);
END
STREAM_CALL(cuMemcpyDtoHAsync_v2, void *to, uint64_t from, size_t bytes, void *stream)
  (void)stream;
  if (!inside(from, bytes)) return INVALID_VALUE;
  memcpy(to, (void *)from, bytes);
END
STREAM_CALL(cuMemcpyDtoDAsync_v2, uint64_t to, uint64_t from, size_t bytes, void *stream)
  (void)stream;
  if (!bytes || !inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
  memcpy((void *)to, (void *)from, bytes);
END
STREAM_CALL(cuMemsetD8Async, uint64_t to, unsigned char byte, size_t bytes, void *stream)
  (void)stream;
  if (!bytes || !inside(to, bytes)) return INVALID_VALUE;
  memset((void *)to, byte, bytes);
END

CALL(cuModuleLoadData, void **module, const char *image)
  if (memcmp(image, "\x7f" "ELF", 4) && !strstr(image, ".target sm_80")) return INVALID_IMAGE;
  *module = malloc(1);
END
CALL(cuModuleUnload, void *module) free(module); END
CALL(cuModuleGetFunction, Kernel **function, void *module, const char *name)
  if (!module || strlen(name) >= sizeof((Kernel *)0)->name) return NOT_FOUND;
  *function = calloc(1, sizeof **function);
  strcpy((*function)->name, name);
END
CALL(cuFuncGetAttribute, int *value, int attribute, Kernel *function)
  if (!function || attribute != 1) return INVALID_VALUE;
  *value = 128;
END
CALL(cuFuncSetAttribute, Kernel *function, int attribute, int value)
  if (!function || attribute != 8 || value != 232448 - 128) return INVALID_VALUE;
END

typedef struct { int id; char pad[4]; int value; char rest[60]; } Attribute;
typedef struct { unsigned grid[3], block[3], shared; void *stream; Attribute *attributes; unsigned count; } Config;

static int run(const Node *node) {
  uint64_t x = node->words[0], y = node->words[1];
  int len = (int)node->words[2];
  if (!inside(x, 4 * (uint64_t)len) || !inside(y, 4 * (uint64_t)len)) return ILLEGAL_ADDRESS;
  for (int i = 0; i < len; i++) ((float *)x)[i] += ((float *)y)[i];
  return SUCCESS;
}

CALL(cuLaunchKernelEx, const Config *config, Kernel *kernel, void **arguments, void **extra)
  if (config->stream != &blocks || extra || strcmp(kernel->name, "add_rows")) return INVALID_VALUE;
  if (config->block[1] != 1 || config->block[2] != 1 || !config->grid[0]) return INVALID_VALUE;
  Node node = {kernel, {*(uint64_t *)arguments[0], *(uint64_t *)arguments[1], (uint64_t) * (int *)arguments[2]}, 0};
  for (unsigned i = 0; i < config->count; i++)
    node.overlaps |= config->attributes[i].id == 6 && config->attributes[i].value == 1;
  if (node.overlaps) begin("an overlapping launch", 1);
  if (!capturing) return run(&node);
  if (node.overlaps && number("FAKE_CUDA_NO_OVERLAP_IN_GRAPHS", 0)) { capturing->broken = 1; return INVALID_VALUE; }
  capturing->nodes[capturing->count++] = node;
END
CALL(cuStreamBeginCapture_v2, void *stream, int mode)
  if (stream != &blocks || mode != 1 || capturing) return INVALID_VALUE;
  capturing = calloc(1, sizeof *capturing);
END
int cuStreamEndCapture(void *stream, Graph **graph) {
  int answer = begin("cuStreamEndCapture", 1);
  *graph = NULL;
  Graph *made = capturing;
  capturing = NULL;
  if (stream != &blocks || !made) return INVALID_VALUE;
  if (!answer && made->broken) answer = CAPTURE_INVALIDATED;
  if (answer) free(made); else *graph = made;
  return answer;
}
CALL(cuGraphInstantiateWithFlags, Graph **made, Graph *graph, unsigned long long flags)
  if (!graph || flags) return INVALID_VALUE;
  *made = malloc(sizeof *graph);
  memcpy(*made, graph, sizeof *graph);
END
CALL(cuGraphDestroy, Graph *graph) free(graph); END
CALL(cuGraphExecDestroy, Graph *graph) free(graph); END
STREAM_CALL(cuGraphLaunch, Graph *graph, void *stream)
  (void)stream;
  for (int i = 0; i < graph->count && !answer; i++) answer = run(&graph->nodes[i]);
  return answer;
}
