"""What a code host does with a pull request to a repository of results: check, compare, verify, comment."""

from __future__ import annotations

SAMPLE = 3  # new cells that are measured again
SAMPLES = 50  # of each, of these many samples

WORKFLOW = r"""# written by attnbench publish; yours to change
name: check
on: pull_request
permissions:
  contents: read
  pull-requests: write
jobs:
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    env:
      BASE: ${{ github.event.pull_request.base.sha }}
      NUMBER: ${{ github.event.pull_request.number }}
    defaults:
      run:
        shell: bash
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0
          persist-credentials: false
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install
        run: pip install attnbench==@VERSION@
      - name: Check
        run: attnbench leaderboard boards/*.toml --check
      - name: Compare
        if: always()
        run: |
          set -euo pipefail
          git worktree add --quiet --detach "$RUNNER_TEMP/base" "$BASE"
          attnbench publish . --against "$RUNNER_TEMP/base" > "$RUNNER_TEMP/comment.md"
      - name: Verify
        if: always()
        run: |
          set -uo pipefail
          wrong=0
          # which cells are drawn follows from the commit: the same again, and not for its author to choose
          seed=$(git rev-parse HEAD)
          which='import json, sys; print(json.load(open(sys.argv[1]))["provenance"].get("source"))'
          while IFS= read -r -d '' file; do
            source=$(python -c "$which" "$file")
            if [ "$source" = folder ]; then
              printf -- '- %s: of a checkpoint that is not to be had here, not measured again\n' "$file"
              continue
            fi
            told=$(attnbench verify "$file" --sample @SAMPLES@ 2>&1) || wrong=1
            printf -- '- %s: %s\n' "$file" "$(tail -n 1 <<< "$told")"
          done >> "$RUNNER_TEMP/comment.md" < <(
            git diff -z --name-only --diff-filter=AM "$BASE" HEAD -- 'boards/records/*.json' |
              shuf -z -n @SAMPLE@ --random-source=<(yes "$seed")
          )
          exit "$wrong"
      - name: Comment
        if: always()
        continue-on-error: true  # a pull request from a fork may not write: its summary has it all the same
        env:
          GH_TOKEN: ${{ github.token }}
        run: |
          cat "$RUNNER_TEMP/comment.md" >> "$GITHUB_STEP_SUMMARY"
          gh pr comment "$NUMBER" --body-file "$RUNNER_TEMP/comment.md"
"""


def workflow(version: str) -> str:
    """Return the workflow that installs this version of attnbench."""
    told = {"@VERSION@": version, "@SAMPLES@": str(SAMPLES), "@SAMPLE@": str(SAMPLE)}
    text = WORKFLOW
    for name, value in told.items():
        text = text.replace(name, value)
    return text
