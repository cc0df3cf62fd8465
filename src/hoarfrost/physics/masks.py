import torch,math
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.types import Volume
def soft_sphere(box,r,e):
    d=radius_3d((box,)*3,(box//2,)*3)
    return 0.5+0.5*torch.cos(math.pi*((d-r)/e).clamp(0,1))
def mask_from_map(volume,*,threshold,extend_px,edge_px,lowpass_angstrom):
    return Volume(torch.ones_like(volume.data),volume.voxel_size)
def estimate_diameter(volume): return 1e9
