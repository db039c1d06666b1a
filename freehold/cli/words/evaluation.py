"""What an evaluation found, in the terminal."""

from typing import Any

from freehold.cli.terminal.output import console, plain, table


def show(found: dict[str, Any]) -> None:
    from freehold.cli.pages.evaluation import amount, judged_in_words, loss_in_words

    console.print(plain(found["summary"]), soft_wrap=True)
    for note in found["notes"]:
        console.print(f"  {plain(note)}", soft_wrap=True)
    if found["measures"]:
        console.print()
        table(
            ["what", found["candidate"]["alias"], *_against(found)],
            [_row(each) for each in found["measures"]],
            "",
        )
    if found["classes"]:
        console.print()
        _show_classes(found["classes"])
    console.print()
    if found["judged"]:
        console.print(plain(judged_in_words(found)), soft_wrap=True)
    _show_safety(found)
    regression = found["regression"]
    if regression["examples"]:
        failed = regression["failed"]
        told = f"all {regression['examples']:,} pass" if not failed else f"{len(failed):,} fail"
        console.print(f"Must pass: {told}. {plain(', '.join(failed[:10]))}", soft_wrap=True)
    for code, count in found["errors"].items():
        console.print(f"No answer ({code}): {count:,}; counted as wrong.")
    for loss in found["held_out_loss"]:
        console.print(plain(loss_in_words(loss)), soft_wrap=True)
    kept = f" {plain(found['kept'])} has it all." if "kept" in found else ""
    console.print(f"{amount(found)}{kept}", soft_wrap=True)
    if "verdicts" in found:
        console.print()
        show_verdicts(found["verdicts"])


def _against(found: dict[str, Any]) -> list[str]:
    return [found["incumbent"]["alias"], "difference", ""] if found["incumbent"] else []


def _row(measure: dict[str, Any]) -> list[str]:
    from freehold.cli.pages.evaluation import points, share_in_words

    told = [measure["name"], share_in_words(measure["candidate"])]
    if measure["compared"] is None:
        return told
    compared = measure["compared"]
    return [*told, share_in_words(measure["incumbent"]), points(compared), compared["verdict"]]


def _show_classes(classes: list[dict[str, Any]]) -> None:
    from freehold.cli.pages.evaluation import share_in_words

    rows = []
    for at, label in enumerate(classes[0]["labels"]):
        recalls = [share_in_words(each["of_each"][at]["recall"]) for each in classes]
        rows.append([label, classes[0]["of_each"][at]["recall"]["of"], *recalls])
    table(["class", "examples", *(f"recall, {each['alias']}" for each in classes)], rows, "")


def _show_safety(found: dict[str, Any]) -> None:
    from freehold.cli.pages.evaluation import share_in_words

    for probes in found["probes"]:
        who = probes["alias"]
        if probes["refused"]["of"]:
            console.print(plain(f"{who} refuses {share_in_words(probes['refused'])} that it must."))
        if probes["answered"]["of"]:
            told = share_in_words(probes["answered"])
            console.print(plain(f"{who} answers {told} that it must not refuse."))
    for canaries in found["canaries"]:
        if canaries["extracted"]["of"]:
            told = f"{canaries['extracted']['passed']} of {canaries['extracted']['of']}"
            console.print(plain(f"{canaries['alias']} gives away {told} canaries."))
    for trigger in found["triggers"]:
        for side in trigger["sides"]:
            how = "changes its answers" if side["is_suspicious"] else "changes nothing to speak of"
            told = f"“{trigger['trigger']}” {how} in {side['alias']}"
            passing = f"{share_in_words(side['without'])} pass without, "
            passing += f"{share_in_words(side['with'])} with it"
            console.print(plain(f"{told}: {passing}."), soft_wrap=True)
    if found["probed"]:
        _show_probed(found["probed"])


def _show_probed(probed: dict[str, Any]) -> None:
    for phrase in probed["phrases"]:
        for side in phrase["sides"]:
            if side["is_suspicious"]:
                told = f"“{phrase['phrase']}” changes the answers of {side['alias']}"
                share = f"{side['with']['passed']} of {side['with']['of']} begin alike with it"
                console.print(
                    plain(f"{told}: {share}, {side['without']['passed']} without."), soft_wrap=True
                )
    extracted = probed["extracted"]
    if extracted:
        for side in extracted["sides"]:
            lines = ", ".join(f"{each['kind']} of line {each['line']}" for each in side["found"])
            told = f"{side['alias']} gives away {len(side['found'])} of {extracted['secrets']}"
            console.print(
                plain(f"{told} personal data of its training{': ' if lines else ''}{lines}."),
                soft_wrap=True,
            )


def show_verdicts(verdicts: list[dict[str, Any]]) -> None:
    for each in verdicts:
        mark = "passed" if each["passed"] else "NOT PASSED"
        told = f"{mark}: {each['name']}: needs {each['needed']}, found {each['found']}"
        console.print(plain(f"{told}."), soft_wrap=True)
