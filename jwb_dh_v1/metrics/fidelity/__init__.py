"""Metrics that compare with real clips: frame by frame (SSIM, PSNR, CSIM) or as sets (FID, FVD, E-FID)."""
