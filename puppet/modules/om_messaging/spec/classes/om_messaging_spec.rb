# frozen_string_literal: true

require 'spec_helper'

describe 'om_messaging' do
  nova = '/etc/nova/nova.conf'
  neutron = '/etc/neutron/neutron.conf'
  digest = 'a' * 64
  settings = { 'DEFAULT' => { 'transport_url' => 'rabbit://secret@host/' } }
  files = {
    nova => { 'settings' => settings, 'mode' => '0640', 'units' => ['nova-compute@1', 'qdrouterd'] },
    neutron => { 'settings' => settings, 'units' => ['neutron-server', 'nova-compute@1'] }
  }
  units = {
    'qdrouterd' => { 'ensure' => 'running', 'enable' => true, 'config_digest' => digest },
    'rabbitmq-server' => {}
  }
  stamp = '/var/lib/om-agent/units/qdrouterd'

  context 'without data' do
    it { is_expected.to compile.with_all_deps }
    it { is_expected.to have_service_resource_count(0) }
    it { is_expected.to have_ini_setting_resource_count(0) }
    it { is_expected.to have_file_resource_count(0) }
  end

  context 'with files and units' do
    let(:params) { { 'config_files' => sensitive(files), 'units' => units } }
    let(:key) { "Ini_setting[#{nova} [DEFAULT] transport_url]" }

    it { is_expected.to compile.with_all_deps }
    it { is_expected.to have_service_resource_count(4) }

    it 'passes each file on' do
      is_expected.to contain_om_messaging__config_file(nova)
        .with_settings(sensitive(settings)).with_mode('0640').without_owner
      is_expected.to contain_om_messaging__config_file(neutron).without_mode
    end

    it 'manages of a unit only what is given' do
      is_expected.to contain_service('qdrouterd').with_ensure('running').with_enable(true)
      is_expected.to contain_service('rabbitmq-server').without_ensure.without_enable
      is_expected.to contain_service('nova-compute@1').without_ensure.without_enable.without_provider
    end

    it 'restarts a unit when its keys change' do
      is_expected.to contain_service('nova-compute@1').that_subscribes_to(key)
      is_expected.to contain_service('qdrouterd').that_subscribes_to(key)
    end

    it 'keeps a stamp that nobody else can read' do
      is_expected.to contain_file(stamp)
        .with_content("#{digest}\n").with_mode('0600').with_show_diff(false).that_notifies('Service[qdrouterd]')
      is_expected.to contain_file('/var/lib/om-agent/units').with_ensure('directory').with_mode('0700')
      is_expected.to have_file_resource_count(2)
    end

    it 'orders keys and stamps, routers and brokers, services' do
      is_expected.to contain_service('rabbitmq-server')
        .that_requires(["Om_messaging::Config_file[#{nova}]", "File[#{stamp}]"])
      is_expected.to contain_service('neutron-server')
        .that_requires(['Service[qdrouterd]', 'Service[rabbitmq-server]', "Om_messaging::Config_file[#{nova}]"])
    end
  end

  context 'when the node no longer runs a broker' do
    let(:params) do
      retired = { 'rabbitmq-server' => { 'ensure' => 'stopped', 'enable' => false } }
      { 'config_files' => sensitive(files), 'units' => units.merge(retired) }
    end

    it 'stops it after its clients have left it' do
      is_expected.to contain_service('rabbitmq-server').with_ensure('stopped')
        .that_requires(['Service[qdrouterd]', 'Service[neutron-server]'])
    end
  end

  context 'when services are not managed' do
    let(:params) { { 'config_files' => sensitive(files), 'units' => units, 'manage_service' => false } }

    it { is_expected.to compile.with_all_deps }
    it { is_expected.to have_service_resource_count(0) }
    it { is_expected.to have_om_messaging__config_file_resource_count(2) }
    it { is_expected.not_to contain_file(stamp) }
  end

  context 'with another state directory and service provider' do
    let(:params) { { 'units' => units, 'state_dir' => '/run/stamps', 'service_provider' => 'base' } }

    it { is_expected.to contain_file('/run/stamps/qdrouterd').that_requires('File[/run/stamps]') }
    it { is_expected.to contain_service('qdrouterd').with_provider('base') }
  end

  {
    'settings that are not Sensitive' => { 'config_files' => files },
    'a unit that leaves the state directory' => { 'units' => { '../x' => {} } },
    'an unknown parameter' => { 'config' => {} }
  }.each do |reason, wrong|
    context "with #{reason}" do
      let(:params) { wrong }

      it { is_expected.to compile.and_raise_error(%r{Om_messaging}) }
    end
  end

  context 'with a relative path' do
    let(:params) { { 'config_files' => sensitive('nova.conf' => { 'settings' => settings }) } }

    it { is_expected.to compile.and_raise_error(%r{config_files}) }
  end

  context 'with a value of two lines' do
    let(:params) { { 'config_files' => sensitive(nova => { 'settings' => { 'DEFAULT' => { 'k' => "canary\nx" } } }) } }

    it { is_expected.to compile.and_raise_error(%r{\A(?!.*canary).*config_files}m) }
  end
end
