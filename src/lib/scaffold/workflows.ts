/** The workflows of .github/workflows/, by their path in a repository. Written by `npm run templates`; edit those files. */
export const workflows: Readonly<Record<string, string>> = {
  '.github/workflows/database-backup.yml': `# A backup of the database, every night and by hand. Written by \`loma-backup init github\`.
#
# Secrets (Settings, Secrets and variables, Actions): DATABASE_URL, CLOUDFLARE_R2_ACCOUNT_ID, CLOUDFLARE_R2_ACCESS_KEY_ID,
# CLOUDFLARE_R2_SECRET_ACCESS_KEY, PHI_ENCRYPTION_KEY; if you have them, PHI_ENCRYPTION_KEYS_PREVIOUS and LOMA_BACKUP_PING_URL.
# Variables, if the defaults are not yours: CLOUDFLARE_R2_BUCKET_BACKUPS, CLOUDFLARE_R2_ENDPOINT, CLOUDFLARE_R2_REGION,
# LOMA_BACKUP_COMPRESSION, LOMA_BACKUP_RECOVERY_PUBLIC_KEY.
# Whoever may change this file can read those secrets: have changes of it reviewed.
name: Database backup

on:
  schedule:
    - cron: '0 2 * * *'
  workflow_dispatch:

permissions: {}

# Never two at once, and a backup that runs is never ended for another one.
concurrency:
  group: loma-backup-backup
  cancel-in-progress: false

defaults:
  run:
    # With this word GitHub adds \`-o pipefail\`.
    shell: bash

env:
  # The exact version: a backup is no place for surprises.
  LOMA_BACKUP_PACKAGE: loma-backup@0.1.0
  NO_COLOR: '1'

jobs:
  backup:
    runs-on: ubuntu-24.04
    timeout-minutes: 120
    permissions:
      contents: read
    outputs:
      # GitHub drops an output that holds a secret's value.
      error: \${{ steps.failure.outputs.error }}
    steps:
      - name: Check out the repository
        uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2
        with:
          persist-credentials: false

      - name: Install Node.js
        uses: actions/setup-node@6044e13b5dc448c55e2357c09f80417699197238 # v6.2.0
        with:
          node-version: '24'
          package-manager-cache: false

      - name: Check that the secrets are set
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
          PHI_ENCRYPTION_KEY: \${{ secrets.PHI_ENCRYPTION_KEY }}
          CLOUDFLARE_R2_ENDPOINT: \${{ vars.CLOUDFLARE_R2_ENDPOINT }}
          CLOUDFLARE_R2_ACCOUNT_ID: \${{ secrets.CLOUDFLARE_R2_ACCOUNT_ID }}
          CLOUDFLARE_R2_ACCESS_KEY_ID: \${{ secrets.CLOUDFLARE_R2_ACCESS_KEY_ID }}
          CLOUDFLARE_R2_SECRET_ACCESS_KEY: \${{ secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY }}
        run: |
          needed=(DATABASE_URL PHI_ENCRYPTION_KEY CLOUDFLARE_R2_ACCESS_KEY_ID CLOUDFLARE_R2_SECRET_ACCESS_KEY)
          [ -n "$CLOUDFLARE_R2_ENDPOINT" ] || needed+=(CLOUDFLARE_R2_ACCOUNT_ID)
          missing=0
          for name in "\${needed[@]}"; do
            [ -n "\${!name}" ] && continue
            echo "::error title=Secret missing::$name is not set. Set it with: gh secret set $name"
            echo "$name is not set. Set it with: gh secret set $name" >>"$RUNNER_TEMP/loma-backup.log"
            missing=1
          done
          exit "$missing"

      - name: Install loma-backup
        run: |
          {
            if [ "$(jq -r .name package.json 2>/dev/null)" = loma-backup ]; then
              # In its own repository: what is checked out.
              npm ci --no-audit --no-fund
              npm run build
              npm install --global --no-audit --no-fund .
            else
              npm install --global --no-audit --no-fund --ignore-scripts "$LOMA_BACKUP_PACKAGE"
            fi
          } 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Install the PostgreSQL client that fits the server
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
        run: |
          {
            # Any psql can ask the server for its version.
            command -v psql >/dev/null || { sudo apt-get update -q && sudo apt-get install -qy --no-install-recommends postgresql-client; }
            packages=$(loma-backup init packages)
            echo "Needed: $packages"
            # shellcheck disable=SC2086 # several words
            if ! dpkg -s $packages >/dev/null 2>&1; then
              sudo apt-get update -q
              sudo apt-get install -qy --no-install-recommends postgresql-common
              sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
              sudo apt-get install -qy --no-install-recommends $packages
            fi
          } 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Back up
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
          PHI_ENCRYPTION_KEY: \${{ secrets.PHI_ENCRYPTION_KEY }}
          PHI_ENCRYPTION_KEYS_PREVIOUS: \${{ secrets.PHI_ENCRYPTION_KEYS_PREVIOUS }}
          CLOUDFLARE_R2_ACCOUNT_ID: \${{ secrets.CLOUDFLARE_R2_ACCOUNT_ID }}
          CLOUDFLARE_R2_ACCESS_KEY_ID: \${{ secrets.CLOUDFLARE_R2_ACCESS_KEY_ID }}
          CLOUDFLARE_R2_SECRET_ACCESS_KEY: \${{ secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY }}
          CLOUDFLARE_R2_ENDPOINT: \${{ vars.CLOUDFLARE_R2_ENDPOINT }}
          CLOUDFLARE_R2_REGION: \${{ vars.CLOUDFLARE_R2_REGION }}
          CLOUDFLARE_R2_BUCKET_BACKUPS: \${{ vars.CLOUDFLARE_R2_BUCKET_BACKUPS }}
          LOMA_BACKUP_COMPRESSION: \${{ vars.LOMA_BACKUP_COMPRESSION }}
          LOMA_BACKUP_RECOVERY_PUBLIC_KEY: \${{ vars.LOMA_BACKUP_RECOVERY_PUBLIC_KEY }}
          LOMA_BACKUP_PING_URL: \${{ secrets.LOMA_BACKUP_PING_URL }}
          LABEL: \${{ github.event_name == 'schedule' && 'scheduled' || 'manual' }}
        run: loma-backup backup --label "$LABEL" 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Collect what the issue will say
        id: failure
        if: \${{ failure() || cancelled() }}
        run: |
          log=$RUNNER_TEMP/loma-backup.log
          touch "$log"
          code=$(sed -n 's/^ *Code: \\([A-Z_]*\\)$/\\1/p' "$log" | tail -n 1)
          runbook=$(npm root --global)/loma-backup/docs/BACKUP_PROCEDURES.md
          {
            echo 'error<<end-of-error-text'
            # Four blanks: text that GitHub shows as it is, whatever it holds.
            tail -n 40 "$log" | tail -c 20000 | sed 's/^/    /'
            if [ -n "$code" ] && [ -f "$runbook" ]; then
              printf '\\n%s\\n\\n' "The runbook on $code:"
              # The paragraph that begins with this code.
              awk -v RS= -v start="**$code**" 'index($0, start) == 1' "$runbook" | sed 's/^/> /'
            fi
            if [ -f docs/BACKUP_PROCEDURES.md ]; then
              printf '\\n%s\\n' "Runbook: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY/blob/$GITHUB_SHA/docs/BACKUP_PROCEDURES.md#error-codes"
            else
              printf '\\n%s\\n' 'Runbook: \`docs/BACKUP_PROCEDURES.md\` of the package \`loma-backup\`, "Error codes".'
            fi
            echo end-of-error-text
          } >>"$GITHUB_OUTPUT"

  report:
    needs: backup
    if: \${{ always() && needs.backup.result != 'success' }}
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      issues: write
    steps:
      - name: Open an issue, or comment on the open one
        env:
          GH_TOKEN: \${{ github.token }}
          GH_REPO: \${{ github.repository }}
          TITLE: The database backup failed
          LABEL: backup-failed
          RESULT: \${{ needs.backup.result }}
          ERROR: \${{ needs.backup.outputs.error }}
          RUN_URL: \${{ github.server_url }}/\${{ github.repository }}/actions/runs/\${{ github.run_id }}
        run: |
          {
            printf '%s\\n\\n' "$TITLE ($RESULT): $RUN_URL"
            printf '%s\\n' "\${ERROR:-The run says why. It was ended before it could say it here.}"
          } >"$RUNNER_TEMP/issue.md"
          gh label create "$LABEL" --description "$TITLE" --color B60205 --force
          number=$(gh issue list --label "$LABEL" --state open --limit 1 --json number --jq '.[0].number // empty')
          if [ -n "$number" ]; then
            gh issue comment "$number" --body-file "$RUNNER_TEMP/issue.md"
          else
            gh issue create --title "$TITLE" --label "$LABEL" --body-file "$RUNNER_TEMP/issue.md"
          fi
`,
  '.github/workflows/backup-verification.yml': `# The proof that the newest backup can be restored, every month and by hand. Written by \`loma-backup init github\`.
#
# Secrets (Settings, Secrets and variables, Actions): DATABASE_URL, CLOUDFLARE_R2_ACCOUNT_ID, CLOUDFLARE_R2_ACCESS_KEY_ID,
# CLOUDFLARE_R2_SECRET_ACCESS_KEY, PHI_ENCRYPTION_KEY; if you have them, PHI_ENCRYPTION_KEYS_PREVIOUS.
# Variables, if the defaults are not yours: CLOUDFLARE_R2_BUCKET_BACKUPS, CLOUDFLARE_R2_BUCKET_FILES, CLOUDFLARE_R2_ENDPOINT,
# CLOUDFLARE_R2_REGION.
# Whoever may change this file can read those secrets: have changes of it reviewed.
name: Backup verification

on:
  schedule:
    - cron: '0 4 1 * *'
  workflow_dispatch:

permissions: {}

# Never two at once.
concurrency:
  group: loma-backup-verification
  cancel-in-progress: false

defaults:
  run:
    # With this word GitHub adds \`-o pipefail\`.
    shell: bash

env:
  # The exact version, as in database-backup.yml.
  LOMA_BACKUP_PACKAGE: loma-backup@0.1.0
  NO_COLOR: '1'

jobs:
  verify:
    runs-on: ubuntu-24.04
    timeout-minutes: 120
    permissions:
      contents: read
    outputs:
      # GitHub drops an output that holds a secret's value.
      error: \${{ steps.failure.outputs.error }}
    steps:
      - name: Check out the repository
        uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2
        with:
          persist-credentials: false

      - name: Install Node.js
        uses: actions/setup-node@6044e13b5dc448c55e2357c09f80417699197238 # v6.2.0
        with:
          node-version: '24'
          package-manager-cache: false

      - name: Check that the secrets are set
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
          PHI_ENCRYPTION_KEY: \${{ secrets.PHI_ENCRYPTION_KEY }}
          CLOUDFLARE_R2_ENDPOINT: \${{ vars.CLOUDFLARE_R2_ENDPOINT }}
          CLOUDFLARE_R2_ACCOUNT_ID: \${{ secrets.CLOUDFLARE_R2_ACCOUNT_ID }}
          CLOUDFLARE_R2_ACCESS_KEY_ID: \${{ secrets.CLOUDFLARE_R2_ACCESS_KEY_ID }}
          CLOUDFLARE_R2_SECRET_ACCESS_KEY: \${{ secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY }}
        run: |
          needed=(DATABASE_URL PHI_ENCRYPTION_KEY CLOUDFLARE_R2_ACCESS_KEY_ID CLOUDFLARE_R2_SECRET_ACCESS_KEY)
          [ -n "$CLOUDFLARE_R2_ENDPOINT" ] || needed+=(CLOUDFLARE_R2_ACCOUNT_ID)
          missing=0
          for name in "\${needed[@]}"; do
            [ -n "\${!name}" ] && continue
            echo "::error title=Secret missing::$name is not set. Set it with: gh secret set $name"
            echo "$name is not set. Set it with: gh secret set $name" >>"$RUNNER_TEMP/loma-backup.log"
            missing=1
          done
          exit "$missing"

      - name: Install loma-backup
        run: |
          {
            if [ "$(jq -r .name package.json 2>/dev/null)" = loma-backup ]; then
              # In its own repository: what is checked out.
              npm ci --no-audit --no-fund
              npm run build
              npm install --global --no-audit --no-fund .
            else
              npm install --global --no-audit --no-fund --ignore-scripts "$LOMA_BACKUP_PACKAGE"
            fi
          } 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Install the PostgreSQL client and server that fit the database
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
        run: |
          {
            # Any psql can ask the server for its version.
            command -v psql >/dev/null || { sudo apt-get update -q && sudo apt-get install -qy --no-install-recommends postgresql-client; }
            packages=$(loma-backup init packages --with-server)
            echo "Needed: $packages"
            # shellcheck disable=SC2086 # several words
            if ! dpkg -s $packages >/dev/null 2>&1; then
              sudo apt-get update -q
              sudo apt-get install -qy --no-install-recommends postgresql-common
              sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
              sudo apt-get install -qy --no-install-recommends $packages
            fi
          } 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Verify
        env:
          DATABASE_URL: \${{ secrets.DATABASE_URL }}
          PHI_ENCRYPTION_KEY: \${{ secrets.PHI_ENCRYPTION_KEY }}
          PHI_ENCRYPTION_KEYS_PREVIOUS: \${{ secrets.PHI_ENCRYPTION_KEYS_PREVIOUS }}
          CLOUDFLARE_R2_ACCOUNT_ID: \${{ secrets.CLOUDFLARE_R2_ACCOUNT_ID }}
          CLOUDFLARE_R2_ACCESS_KEY_ID: \${{ secrets.CLOUDFLARE_R2_ACCESS_KEY_ID }}
          CLOUDFLARE_R2_SECRET_ACCESS_KEY: \${{ secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY }}
          CLOUDFLARE_R2_ENDPOINT: \${{ vars.CLOUDFLARE_R2_ENDPOINT }}
          CLOUDFLARE_R2_REGION: \${{ vars.CLOUDFLARE_R2_REGION }}
          CLOUDFLARE_R2_BUCKET_BACKUPS: \${{ vars.CLOUDFLARE_R2_BUCKET_BACKUPS }}
          CLOUDFLARE_R2_BUCKET_FILES: \${{ vars.CLOUDFLARE_R2_BUCKET_FILES }}
        run: loma-backup verify --scratch local --report "$RUNNER_TEMP/verification.html" 2>&1 | tee -a "$RUNNER_TEMP/loma-backup.log"

      - name: Keep the report
        if: \${{ !cancelled() }}
        uses: actions/upload-artifact@b7c566a772e6b6bfb58ed0dc250532a479d7789f # v6.0.0
        with:
          name: verification-\${{ github.run_id }}
          path: \${{ runner.temp }}/verification.html
          # GitHub's longest, where the repository's settings allow it (90 days in a public one). HIPAA wants six years: file it.
          retention-days: 400
          if-no-files-found: warn

      - name: Collect what the issue will say
        id: failure
        if: \${{ failure() || cancelled() }}
        run: |
          log=$RUNNER_TEMP/loma-backup.log
          touch "$log"
          code=$(sed -n 's/^ *Code: \\([A-Z_]*\\)$/\\1/p' "$log" | tail -n 1)
          runbook=$(npm root --global)/loma-backup/docs/BACKUP_PROCEDURES.md
          {
            echo 'error<<end-of-error-text'
            # Four blanks: text that GitHub shows as it is, whatever it holds.
            tail -n 40 "$log" | tail -c 20000 | sed 's/^/    /'
            if [ -n "$code" ] && [ -f "$runbook" ]; then
              printf '\\n%s\\n\\n' "The runbook on $code:"
              # The paragraph that begins with this code.
              awk -v RS= -v start="**$code**" 'index($0, start) == 1' "$runbook" | sed 's/^/> /'
            fi
            if [ -f docs/BACKUP_PROCEDURES.md ]; then
              printf '\\n%s\\n' "Runbook: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY/blob/$GITHUB_SHA/docs/BACKUP_PROCEDURES.md#error-codes"
            else
              printf '\\n%s\\n' 'Runbook: \`docs/BACKUP_PROCEDURES.md\` of the package \`loma-backup\`, "Error codes".'
            fi
            echo end-of-error-text
          } >>"$GITHUB_OUTPUT"

  report:
    needs: verify
    if: \${{ always() && needs.verify.result != 'success' }}
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      issues: write
    steps:
      - name: Open an issue, or comment on the open one
        env:
          GH_TOKEN: \${{ github.token }}
          GH_REPO: \${{ github.repository }}
          TITLE: The verification of the backup failed
          LABEL: backup-verification-failed
          RESULT: \${{ needs.verify.result }}
          ERROR: \${{ needs.verify.outputs.error }}
          RUN_URL: \${{ github.server_url }}/\${{ github.repository }}/actions/runs/\${{ github.run_id }}
        run: |
          {
            printf '%s\\n\\n' "$TITLE ($RESULT): $RUN_URL"
            printf '%s\\n' "\${ERROR:-The run says why. It was ended before it could say it here.}"
          } >"$RUNNER_TEMP/issue.md"
          gh label create "$LABEL" --description "$TITLE" --color B60205 --force
          number=$(gh issue list --label "$LABEL" --state open --limit 1 --json number --jq '.[0].number // empty')
          if [ -n "$number" ]; then
            gh issue comment "$number" --body-file "$RUNNER_TEMP/issue.md"
          else
            gh issue create --title "$TITLE" --label "$LABEL" --body-file "$RUNNER_TEMP/issue.md"
          fi
`,
};
