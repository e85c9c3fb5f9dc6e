#include <../queue.c>
