#include <../register.c>
