/**
 * `npm run demo`: a backup and a restore with throw-away servers on loopback. What is shown between the lines is the
 * command line's own output.
 */
import {maskerFor} from '../src/lib/secret.ts';
import {clinicSql} from '../test/support/clinic.ts';
import {createBucket} from '../test/support/object-server.ts';
import {runSql} from '../test/support/postgres-server.ts';
import {startServers} from '../test/support/sandbox.ts';
import {compareTables, readTables} from './demo/compare.ts';
import {cli, environmentWith, newKey, objectSettings, projectDirectory} from './shared/cli.ts';
import {run, runScript} from './shared/script.ts';
import {textTable} from './shared/table.ts';

const patients = 500;
const bucket = 'loma-db-backups';

await runScript(async ({signal, defer}) => {
  say('Starting a throw-away PostgreSQL and a throw-away S3 server on loopback.');
  const {postgres, objects, stop} = await startServers();
  defer(stop);
  signal.throwIfAborted();

  say('Filling the database "clinic" with made-up patients.');
  await runSql(postgres.adminUrl, 'CREATE DATABASE clinic TEMPLATE template0');
  await runSql(postgres.adminUrl, 'CREATE DATABASE clinic_copy TEMPLATE template0');
  const source = postgres.url('clinic');
  const copy = postgres.url('clinic_copy');
  await runSql(source, clinicSql({patients}));
  await createBucket(objects, bucket);

  const settings = {
    DATABASE_URL: source,
    PHI_ENCRYPTION_KEY: newKey(),
    ...objectSettings(objects, bucket),
  };
  const mask = maskerFor([postgres.password, settings.PHI_ENCRYPTION_KEY, objects.secretAccessKey]);
  const env = environmentWith(settings);
  const lomaBackup = async (...args: string[]) => {
    say(`$ loma-backup ${mask(args.join(' '))}`);
    await run(cli.file, [cli.script, ...args], {env, signal, output: 'inherit', cwd: projectDirectory});
  };
  say(`Set for what follows: ${Object.keys(settings).join(', ')}`);
  await lomaBackup('backup');
  await lomaBackup('list');
  await lomaBackup('restore', '--latest', '--target', copy);

  const query = (url: string) => ({query: (sql: string) => runSql(url, sql)});
  const tables = compareTables(await readTables(query(source)), await readTables(query(copy)));
  say('Both databases, table by table (counted and digested by PostgreSQL):');
  console.log(
    textTable(
      ['Table', 'Rows in clinic', 'Rows in clinic_copy', 'md5 of the rows', 'Equal'],
      tables.map(({table, sourceRows, copyRows, md5, isEqual}) => [
        table,
        String(sourceRows ?? '-'),
        String(copyRows ?? '-'),
        md5,
        isEqual ? 'yes' : 'NO',
      ]),
    ),
  );
  const different = tables.filter(({isEqual}) => !isEqual);
  if (different.length > 0) throw new Error(`${different.length} tables differ.`);
  say('Both databases hold the same rows. The servers and their data are being removed.');
});

function say(text: string): void {
  console.log(`\n${text}`);
}
