# Which of the libraries' forms a build links: sluice_vendor_base and sluice_vendor_utf8proc.
# SLUICE_STATIC: nothing but glibc stays dynamic (tools/gpu_check carries such programs to a machine
# that has a driver and no Debian packages).
find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
if(SLUICE_STATIC)
  set(sluice_vendor_base fmt::fmt-header-only)
  find_library(utf8proc_archive libutf8proc.a REQUIRED)
  set(sluice_vendor_utf8proc ${utf8proc_archive})
  add_compile_definitions(UTF8PROC_STATIC)
  add_link_options(-static-libstdc++ -static-libgcc)
else()
  set(sluice_vendor_base fmt::fmt spdlog::spdlog)
  set(sluice_vendor_utf8proc PkgConfig::UTF8PROC)
endif()
