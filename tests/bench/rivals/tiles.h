/* Included before everything else of llama.cpp. GCC 12 takes the operand of _tile_loadconfig to be 8 bytes long: what is
 * written behind them counts as never read, is left out, and the first tile faults. Here all of memory is read. */
#ifdef __AMX_TILE__
#include <immintrin.h>
#define _tile_loadconfig(config) \
    __extension__({ __asm__ volatile("" : : "r"(config) : "memory"); _tile_loadconfig(config); })
#endif
