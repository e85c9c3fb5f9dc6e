#include <../setup.c>
