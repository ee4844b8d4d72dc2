"""Which files make which module of the node. Each has its own class loader, and may not bring what ``lib/`` has."""

from dataclasses import dataclass

VERSION = "2.19.6"


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    class_name: str
    files: tuple[str, ...]
    policy: str = ""

    def descriptor(self) -> str:
        """The text of ``plugin-descriptor.properties``."""
        told = {
            "description": self.name,
            "version": VERSION,
            "name": self.name,
            "classname": self.class_name,
            "java.version": "11",
            "opensearch.version": VERSION,
            "custom.foldername": "",
            "extended.plugins": "",
            "has.native.controller": "false",
        }
        return "".join(f"{name}={value}\n" for name, value in told.items())


MODULES = (
    Module(
        "mapper-extras",
        "org.opensearch.index.mapper.MapperExtrasPlugin",
        (f"mapper-extras-client-{VERSION}.jar",),
    ),
    Module(
        "analysis-common",
        "org.opensearch.analysis.common.CommonAnalysisPlugin",
        (f"analysis-common-{VERSION}.jar",),
    ),
    # the k-NN plugin builds on it
    Module(
        "lang-painless",
        "org.opensearch.painless.PainlessPlugin",
        (
            f"lang-painless-{VERSION}.jar",
            f"opensearch-scripting-painless-spi-{VERSION}.jar",
            "antlr4-runtime-4.13.1.jar",
            *(f"{name}-9.7.jar" for name in ("asm", "asm-util", "asm-tree", "asm-commons", "asm-analysis")),
        ),
        policy=(
            'grant { permission java.lang.RuntimePermission "createClassLoader"; '
            'permission java.lang.RuntimePermission "getClassLoader"; };\n'
        ),
    ),
)
