"""The papers whose ideas, conventions or programs a run relies on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One paper, and what it is relied on for."""

    key: str
    authors: str  # as BibTeX wants them: joined by "and"
    title: str
    journal: str
    volume: str
    pages: str
    year: int
    doi: str
    purpose: str

    @property
    def text(self) -> str:
        """The reference as one line."""
        names = self.authors.split(" and ")
        who = names[0].split(",")[0] + (" et al." if len(names) > 2 else "")
        if len(names) == 2:
            who = " and ".join(name.split(",")[0] for name in names)
        place = ", ".join(part for part in (f"{self.journal} {self.volume}".strip(), self.pages) if part)
        link = f" https://doi.org/{self.doi}" if self.doi else ""
        return f"{who} ({self.year}). {self.title}. {place}.{link}"

    @property
    def bibtex(self) -> str:
        """The reference as a BibTeX entry."""
        fields = {
            "author": self.authors,
            "title": "{" + self.title + "}",
            "journal": self.journal,
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "year": str(self.year),
            "doi": self.doi,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@article{{{self.key},", *lines, "}"])


REFERENCES = {
    reference.key: reference
    for reference in (
        Reference(
            "rose1998",
            "Rose, Kenneth",
            "Deterministic annealing for clustering, compression, classification, regression, and related "
            "optimization problems",
            "Proceedings of the IEEE",
            "86",
            "2210-2239",
            1998,
            "10.1109/5.726788",
            "soft assignment under a falling temperature, with which a start finds its map",
        ),
        Reference(
            "scheres2012bayesian",
            "Scheres, Sjors H. W.",
            "A Bayesian view on cryo-EM structure determination",
            "Journal of Molecular Biology",
            "415",
            "406-418",
            2012,
            "10.1016/j.jmb.2011.11.010",
            "the likelihood of poses, and maps regularised by their signal-to-noise ratio",
        ),
        Reference(
            "punjani2017",
            "Punjani, Ali and Rubinstein, John L. and Fleet, David J. and Brubaker, Marcus A.",
            "cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination",
            "Nature Methods",
            "14",
            "290-296",
            2017,
            "10.1038/nmeth.4169",
            "ab initio maps from random poses and small batches of images",
        ),
        Reference(
            "gorski2005",
            "Gorski, Krzysztof M. and Hivon, Eric and Banday, Anthony J. and Wandelt, Benjamin D. and "
            "Hansen, Frode K. and Reinecke, Martin and Bartelmann, Matthias",
            "HEALPix: a framework for high-resolution discretization and fast analysis of data distributed on the "
            "sphere",
            "The Astrophysical Journal",
            "622",
            "759-771",
            2005,
            "10.1086/427976",
            "the grid of viewing directions",
        ),
        Reference(
            "yershova2010",
            "Yershova, Anna and Jain, Swati and LaValle, Steven M. and Mitchell, Julie C.",
            "Generating uniform incremental grids on SO(3) using the Hopf fibration",
            "The International Journal of Robotics Research",
            "29",
            "801-812",
            2010,
            "10.1177/0278364909352700",
            "the grid of orientations",
        ),
        Reference(
            "scheres2012gold",
            "Scheres, Sjors H. W. and Chen, Shaoxia",
            "Prevention of overfitting in cryo-EM structure determination",
            "Nature Methods",
            "9",
            "853-854",
            2012,
            "10.1038/nmeth.2115",
            "halves of the data that are refined apart",
        ),
        Reference(
            "rosenthal2003",
            "Rosenthal, Peter B. and Henderson, Richard",
            "Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle "
            "electron cryomicroscopy",
            "Journal of Molecular Biology",
            "333",
            "721-745",
            2003,
            "10.1016/j.jmb.2003.07.013",
            "the threshold of 0.143 and the weights of shells",
        ),
        Reference(
            "chen2013",
            "Chen, Shaoxia and McMullan, Greg and Faruqi, Abdul R. and Murshudov, Garib N. and Short, Judith M. and "
            "Scheres, Sjors H. W. and Henderson, Richard",
            "High-resolution noise substitution to measure overfitting and validate resolution in 3D structure "
            "determination by single particle electron cryomicroscopy",
            "Ultramicroscopy",
            "135",
            "24-35",
            2013,
            "10.1016/j.ultramic.2013.06.004",
            "the correction of the FSC for its mask",
        ),
        Reference(
            "zivanov2020",
            "Zivanov, Jasenko and Nakane, Takanori and Scheres, Sjors H. W.",
            "Estimation of high-order aberrations and anisotropic magnification from cryo-EM data sets in RELION-3.1",
            "IUCrJ",
            "7",
            "253-267",
            2020,
            "10.1107/S2052252520000081",
            "the conventions of aberrations and magnification",
        ),
        Reference(
            "peng1996",
            "Peng, L.-M. and Ren, G. and Dudarev, S. L. and Whelan, M. J.",
            "Robust parameterization of elastic and absorptive electron atomic scattering factors",
            "Acta Crystallographica Section A",
            "52",
            "257-276",
            1996,
            "10.1107/S0108767395014371",
            "scattering of electrons by the atoms of a simulated molecule",
        ),
        Reference(
            "wojdyr2022",
            "Wojdyr, Marcin",
            "GEMMI: a library for structural biology",
            "Journal of Open Source Software",
            "7",
            "4200",
            2022,
            "10.21105/joss.04200",
            "atomic models and their density",
        ),
        Reference(
            "burnley2017",
            "Burnley, Tom and Palmer, Colin M. and Winn, Martyn",
            "Recent developments in the CCP-EM software suite",
            "Acta Crystallographica Section D",
            "73",
            "469-477",
            2017,
            "10.1107/S2059798317007859",
            "mrcfile, which reads and writes maps",
        ),
        Reference(
            "paszke2019",
            "Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James and others",
            "PyTorch: an imperative style, high-performance deep learning library",
            "Advances in Neural Information Processing Systems",
            "32",
            "8024-8035",
            2019,
            "",
            "PyTorch, in which everything is computed",
        ),
    )
}

_FILES = ("burnley2017", "paszke2019")
_SIMULATION = ("peng1996", "wojdyr2022")
_HALVES = ("rosenthal2003", "chen2013")
_AB_INITIO = (
    "rose1998",
    "scheres2012bayesian",
    "punjani2017",
    "gorski2005",
    "yershova2010",
    "scheres2012gold",
    *_HALVES,
    "zivanov2020",
    *_FILES,
)

BY_VERB = {
    "abinit": _AB_INITIO,
    "refine": tuple(key for key in _AB_INITIO if key not in ("rose1998", "punjani2017")),
    "demo": (*_AB_INITIO, *_SIMULATION),
    "simulate": (*_SIMULATION, "zivanov2020", *_FILES),
    "reconstruct": ("scheres2012bayesian", *_HALVES, "zivanov2020", *_FILES),
    "fsc": (*_HALVES, *_FILES),
}


def references_of(verb: str) -> list[Reference]:
    """The papers behind a verb, in the order of their parts in the work."""
    wanted = set(BY_VERB[verb])
    return [reference for key, reference in REFERENCES.items() if key in wanted]
