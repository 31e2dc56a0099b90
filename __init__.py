"""AlignGuard: safety experts for ComfyUI. Nothing heavy happens until the host asks for the nodes."""

WEB_DIRECTORY = "./alignguard_nodes/web"


async def comfy_entrypoint():
    """Return the extension with all nodes of the pack; ComfyUI calls this once at start."""
    # imported here: an eager relative import breaks pytest in a folder whose name holds a hyphen
    from .alignguard_nodes import AlignGuardExtension

    return AlignGuardExtension()
