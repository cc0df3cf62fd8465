import math, torch
def contrast_transfer_function(optics, frequency, dtype=torch.float32):
    s=(frequency/ optics.pixel_size[:,None,None]) if False else None
    kx,ky=frequency.double().unbind(-1)
    V=optics.voltage*1e3; lam=12.2643247/torch.sqrt(V+0.978466e-6*V*V); cs=optics.spherical_aberration*1e7
    p2=optics.pixel_size**-2
    mean=(optics.defocus_u+optics.defocus_v)/2; dif=(optics.defocus_u-optics.defocus_v)/2
    k2=kx*kx+ky*ky
    # cos2(th-a) k2 = (kx2-ky2)cos2a+2kxky sin2a
    A=math.pi*lam*p2
    par=torch.stack([A*mean, A*dif*torch.cos(2*optics.defocus_angle), A*dif*torch.sin(2*optics.defocus_angle), -0.5*math.pi*cs*lam**3*p2**2],-1)
    basis=torch.stack([k2,kx*kx-ky*ky,2*kx*ky,k2*k2])
    g=(par@basis).float()+optics.phase_shift[:,None].float()
    w=optics.amplitude_contrast[:,None].float()
    return torch.sin(g+torch.asin(w))*torch.exp(-(optics.b_factor*p2/4)[:,None].float()*k2.float())*optics.scale[:,None].float()
