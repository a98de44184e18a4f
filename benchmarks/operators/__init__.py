"""``metric-zoo ops bench``: the operators beside a dense convolution and torchvision's deformable one."""
