// Colour profiles (ICC) of pictures: where the macro MULTISTAGE_LCMS says that Little CMS is
// linked, colours by another profile become those of sRGB. A picture without a profile is sRGB.
#pragma once
#ifdef MULTISTAGE_LCMS
#include <lcms2.h>
#endif

#include "picture.hpp"

namespace multistage::io::detail {

/// Bytes of the largest profile that is looked at; those of displays have some thousands.
inline constexpr std::size_t largest_profile = std::size_t{1} << 22;

#ifdef MULTISTAGE_LCMS
/// Owns a profile of Little CMS.
using profile_handle = std::unique_ptr<void, int (*)(void*)>;

/// Whether a profile is sRGB itself, by what it is called, and pixels had better stay as they
/// are.
inline bool is_srgb(cmsHPROFILE profile) {
  char text[256] = "";
  cmsGetProfileInfoASCII(profile, cmsInfoDescription, "en", "US", text, sizeof text);
  return std::string_view(text).find("sRGB") != std::string_view::npos;
}
#endif

/// Interleaved bytes by a profile made those of sRGB, grey ones by grey of sRGB's curve; an
/// alpha behind each pixel stays. A profile that is broken or of other channels is noted, and
/// pixels stay. @param channels 1 or 3
inline void to_srgb([[maybe_unused]] const std::string& path,
                    std::span<const unsigned char> profile,
                    [[maybe_unused]] std::vector<unsigned char>& bytes,
                    [[maybe_unused]] index_t channels,
                    [[maybe_unused]] bool alpha,
                    [[maybe_unused]] const picture_options& options) {
  if (profile.empty())
    return;
#ifdef MULTISTAGE_LCMS
  const auto open = [](cmsHPROFILE p) {
    return profile_handle(p, cmsCloseProfile);
  };
  const profile_handle from =
      open(cmsOpenProfileFromMem(profile.data(), cmsUInt32Number(profile.size())));
  if (from && is_srgb(from.get()))
    return;
  const cmsColorSpaceSignature space = channels == 1 ? cmsSigGrayData : cmsSigRgbData;
  if (!from || cmsGetColorSpace(from.get()) != space)
    return options.warn(path, from ? "its colour profile is for other channels, and not used"
                                   : "its colour profile is broken, and not used");
  profile_handle to = open(cmsCreate_sRGBProfile());
  if (channels == 1) {
    const void* const curve = cmsReadTag(to.get(), cmsSigGreenTRCTag);
    to = open(cmsCreateGrayProfile(cmsD50_xyY(), static_cast<const cmsToneCurve*>(curve)));
  }
  const cmsUInt32Number type = COLORSPACE_SH(channels == 1 ? PT_GRAY : PT_RGB) |
                               EXTRA_SH(alpha ? 1 : 0) |
                               CHANNELS_SH(cmsUInt32Number(channels)) | BYTES_SH(1);
  const std::unique_ptr<void, void (*)(void*)> transform(
      cmsCreateTransform(from.get(), type, to.get(), type, INTENT_PERCEPTUAL,
                         cmsFLAGS_COPY_ALPHA),
      cmsDeleteTransform);
  if (!transform)
    return options.warn(path, "its colour profile cannot be used");
  const std::size_t pixels = bytes.size() / std::size_t(channels + alpha);
  constexpr std::size_t piece = std::size_t{1} << 20;  // Little CMS counts in 32 bits
  for (std::size_t at = 0; at < pixels; at += piece) {
    unsigned char* const first = bytes.data() + at * std::size_t(channels + alpha);
    cmsDoTransform(transform.get(), first, first,
                   cmsUInt32Number(std::min(piece, pixels - at)));
  }
#endif
}

}  // namespace multistage::io::detail
