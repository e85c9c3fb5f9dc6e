#include <../syscall.c>
