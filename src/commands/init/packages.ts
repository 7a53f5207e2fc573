import {Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {type PostgresPackages, postgresPackages} from '../../lib/operations/postgres-packages.ts';

export default class InitPackages extends BaseCommand {
  static override summary = 'Name the Debian and Ubuntu packages of PostgreSQL that fit the server of DATABASE_URL.';
  static override description =
    'Any psql will do to ask the server. Where the release lacks them, apt.postgresql.org has them.\n\n' +
    'Exit codes: 0 done, 2 settings, 3 PostgreSQL.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    'sudo apt-get install $(<%= config.bin %> <%= command.id %> --with-server)',
  ];
  static override flags = {
    'with-server': Flags.boolean({description: "Also the server's package, for `verify --scratch local`."}),
  };

  async run(): Promise<PostgresPackages> {
    const {flags} = await this.parse(InitPackages);
    const {database} = this.settings(['database']);
    const result = await postgresPackages(database, flags['with-server'] === true, this.runtime());
    this.report(result.packages.join(' '));
    return result;
  }
}
