/** The documents: every error code is explained, every link leads somewhere, and every command that they show is run. */
import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {writeReference} from '../scripts/shared/oclif.ts';
import {variableNames} from '../src/lib/config.ts';
import {createBucket} from './support/bucket.ts';
import {program} from './support/cli.ts';
import {clinicSql} from './support/clinic.ts';
import {createDatabase, type TestDatabase} from './support/database.ts';
import {ensurePrograms} from './support/packages.ts';
import {findPostgres} from './support/postgres-programs.ts';
import {servers} from './support/sandbox.ts';
import {newKey} from './support/settings.ts';
import {putProgram} from './support/workflow-runner.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (name: string) => readFile(path.join(root, name), 'utf8');
const documents = [
  ...['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'],
  ...(await readdir(path.join(root, 'docs'), {recursive: true}))
    .filter((name) => name.endsWith('.md'))
    .map((name) => path.join('docs', name)),
];

describe('what must be said', () => {
  it('the runbook explains every error code, and no other', async () => {
    const union = /export type ErrorCode =([^;]+);/.exec(await read('src/lib/errors.ts'))?.[1] ?? '';
    const codes = [...union.matchAll(/'(\w+)'/g)].map(([, code]) => code);
    expect(codes.length).toBeGreaterThan(20);
    const explained = [...(await read('docs/BACKUP_PROCEDURES.md')).matchAll(/^\*\*([A-Z_]+)\*\*/gm)].map(
      ([, code]) => code,
    );
    expect([...new Set(explained)].toSorted()).toEqual(codes.toSorted());
  });

  it('the README explains every setting', async () => {
    const text = await read('README.md');
    expect(variableNames.filter((name) => !text.includes(`| \`${name}\` |`))).toEqual([]);
  });

  it('docs/COMMANDS.md is what the commands say (npm run build)', async () => {
    const copy = path.join(await mkdtemp(path.join(os.tmpdir(), 'loma-test-commands-')), 'COMMANDS.md');
    const text = await read('docs/COMMANDS.md');
    await writeFile(copy, text.replace(/(<!-- commands -->)[\s\S]*(<!-- commandsstop -->)/, '$1\n$2'));
    await writeReference(copy);
    expect(text).toBe(await readFile(copy, 'utf8'));
    await rm(path.dirname(copy), {recursive: true});
    // Neither a place on somebody's machine nor a repository that may not be there.
    expect(text).not.toMatch(/https?:\/\/(?!hc-ping)|\/home\/|\/root\/|\/tmp\//);
  });

  it.each(documents)('%s: every link within the project leads somewhere', async (name) => {
    const text = withoutCode(await read(name));
    const broken: string[] = [];
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const linked = file === '' ? name : path.join(path.dirname(name), file);
      const content = linked.endsWith('.md') ? await read(linked).catch(() => undefined) : await exists(linked);
      const isThere = content !== undefined && (anchor === undefined || anchorsOf(content).includes(anchor));
      if (!isThere) broken.push(target);
    }
    expect(broken).toEqual([]);
  });
});

async function exists(name: string): Promise<string | undefined> {
  const isDirectory = await readdir(path.join(root, name)).catch(() => undefined);
  return isDirectory ? '' : read(name).catch(() => undefined);
}

function withoutCode(text: string): string {
  return text.replace(/^ *```[\s\S]*?^ *```$/gm, '').replace(/`[^`\n]*`/g, (code) => code.replace(/[[\]()]/g, ''));
}

/** GitHub's anchors: lower case, blanks become hyphens, other punctuation goes. */
function anchorsOf(text: string): string[] {
  return [...text.replace(/^ *```[\s\S]*?^ *```$/gm, '').matchAll(/^#{1,6} (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

interface Block {
  /** Document and line. */
  where: string;
  script: string;
  /** Why it is not run. */
  reason: string | undefined;
}

/** The shell commands of a document, in order: its ```sh blocks. */
function blocksOf(name: string, text: string): Block[] {
  const matches = text.matchAll(/(?:^ *<!-- not run: (.+) -->\n)?^( *)```sh\n([\s\S]*?)^\2```$/gm);
  return [...matches].map(({index, 1: reason, 2: indent = '', 3: script = ''}) => ({
    where: `${name}:${text.slice(0, index).split('\n').length}`,
    script: script.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    reason,
  }));
}

const runnable = ['README.md', 'docs/FILES.md', 'docs/BACKUP_PROCEDURES.md', 'docs/DISASTER_RECOVERY_PLAN.md'];
const blocks = (await Promise.all(runnable.map(async (name) => blocksOf(name, await read(name))))).flat();

describe('the commands that the documents show, in their order, on real servers', () => {
  const {postgres, objects} = servers();
  const key = newKey();
  let database: TestDatabase;
  let place: string;
  let replacements: [from: RegExp, to: string][];
  let initial: Record<string, string>;
  let searchPath: string;
  // A block is up to six commands.
  const blockTimeoutMs = 240_000;
  const state = () => path.join(place, 'state.sh');

  beforeAll(async () => {
    await ensurePrograms(['openssl', 'xxd']);
    place = await mkdtemp(path.join(os.tmpdir(), 'loma-test-documents-'));
    database = await createDatabase(postgres, {sql: clinicSql({patients: 20})});
    for (const name of ['.git', 'node_exporter']) await mkdir(path.join(place, name), {recursive: true});
    const admin = new URL(postgres.adminUrl);
    const login = `${admin.username}@${admin.host}`;
    await putProgram(
      path.join(place, 'bin'),
      'loma-backup',
      `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`,
    );
    const found = await findPostgres();
    searchPath = [path.join(place, 'bin'), found?.binDirectory, process.env.PATH].filter(Boolean).join(path.delimiter);
    // What stands in the documents for a reader's own: server, databases, directories, keys.
    replacements = [
      [/user:password@host:5432/g, `${admin.username}:${admin.password}@${admin.host}`],
      [/user@host:5432/g, login],
      [/\bclinic(?=_|\b)/g, database.name],
      [/\/srv\/loma-backups/g, path.join(place, 'backups')],
      [/\/var\/lib\/node_exporter/g, path.join(place, 'node_exporter')],
      [/64 hex characters, from the safe/g, key],
      [/'access key'/g, `'${objects.accessKeyId}'`],
      [/'secret key'/g, `'${objects.secretAccessKey}'`],
      // A time of the reader's: the backups here are of today.
      [/--at 2026-\S+/g, `--at ${new Date(Date.now() + 86_400_000).toISOString()}`],
      // Where openssl asks a person for a passphrase.
      [/-aes256(?= )/g, '-aes256 -pass env:LOMA_BACKUP_RECOVERY_PASSPHRASE'],
      [/(?<=openssl pkey )/g, '-passin env:LOMA_BACKUP_RECOVERY_PASSPHRASE '],
    ];
    initial = {
      // What a reader has: a login of PostgreSQL (~/.pgpass), and the settings of "R2".
      PGPASSWORD: decodeURIComponent(admin.password),
      DATABASE_URL: database.url,
      TEST_DATABASE_URL: postgres.adminUrl,
      PHI_ENCRYPTION_KEY: key,
      CLOUDFLARE_R2_ENDPOINT: objects.endpoint,
      CLOUDFLARE_R2_ACCESS_KEY_ID: objects.accessKeyId,
      CLOUDFLARE_R2_SECRET_ACCESS_KEY: objects.secretAccessKey,
      LOMA_BACKUP_RECOVERY_PASSPHRASE: 'passphrase of the recovery key',
    };
  });
  afterAll(async () => {
    const names = await database.query(`SELECT datname FROM pg_database WHERE datname LIKE '${database.name}\\_%'`);
    const admin = {query: (sql: string) => execa('psql', ['-Xqc', sql, postgres.adminUrl])};
    for (const name of names.split('\n').filter(Boolean)) await admin.query(`DROP DATABASE "${name}" WITH (FORCE)`);
    await database.drop();
    await rm(place, {recursive: true, force: true});
  });

  it('are found, and few are left out', () => {
    expect(blocks.length).toBeGreaterThan(25);
    expect(blocks.filter(({reason}) => reason !== undefined).length).toBeLessThanOrEqual(7);
    // What has to be filled in could not be run.
    expect(blocks.filter(({script, reason}) => !reason && script.includes('…'))).toEqual([]);
  });

  /** Runs a script as the reader's shell would, and keeps what it exports for the next one. */
  async function run(where: string, script: string): Promise<void> {
    const own = replacements.reduce((text, [from, to]) => text.replaceAll(from, to), script);
    const file = path.join(place, 'block.sh');
    await writeFile(file, `. '${state()}'\n${own}\nexport -p >'${state()}'\n`);
    const {exitCode, all} = await execa('bash', ['-eo', 'pipefail', file], {
      cwd: place,
      env: {PATH: searchPath, HOME: place},
      extendEnv: false,
      reject: false,
      all: true,
      stdin: 'ignore',
      timeout: blockTimeoutMs - 5000,
    });
    if (exitCode !== 0) throw new Error(`${where} ended with ${exitCode}:\n${own}\n${all}`);
  }

  describe.each(runnable)('%s', (name) => {
    beforeAll(async () => {
      const buckets = {
        CLOUDFLARE_R2_BUCKET_BACKUPS: await createBucket(objects),
        CLOUDFLARE_R2_BUCKET_FILES: await createBucket(objects),
      };
      const settings = Object.entries({...initial, ...buckets});
      await writeFile(state(), settings.map(([variable, value]) => `export ${variable}='${value}'\n`).join(''));
      await mkdir(path.join(place, 'uploads/2024'), {recursive: true});
      await writeFile(path.join(place, 'uploads/2024/letter.pdf'), 'made up');
      // The plan is for the day after.
      if (name.endsWith('PLAN.md')) await run(name, 'loma-backup backup\nloma-backup files migrate uploads');
    }, blockTimeoutMs);

    it.each(blocks.filter(({where, reason}) => where.startsWith(`${name}:`) && reason === undefined))(
      '$where',
      async ({where, script}) => {
        if (script.includes('restore --latest --table billing.invoices')) {
          await database.query('DROP TABLE IF EXISTS billing.invoices CASCADE');
        }
        await run(where, script);
      },
      blockTimeoutMs,
    );
  });
});
