"""A rail that masks a name, and one that fails."""

from nemoguardrails.actions import action


@action(is_system_action=True)
async def mask_names(text: str):
    if "explode" in text:
        raise RuntimeError("exploded")
    return text.replace("Jane", "[NAME]")
