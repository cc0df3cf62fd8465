import torch
class NoiseAccumulator:
    def __init__(self,band,r): self.band=band; self.r=r; self.count=0; self.s=0
    def add(self,images):
        b=images.shape[-1]; a=torch.arange(b)-b//2; m=((a[:,None]**2+a**2)>self.r**2).float()
        v=self.band.from_images(images*m); self.s=self.s+v.abs().square().sum(0)/m.mean(); self.count+=len(images)
    def spectrum(self):
        s=self.band.shell_mean(self.s/self.count); s[0]=s[1]; return s
