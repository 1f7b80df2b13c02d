# frozen_string_literal: true

require 'spec_helper'

describe 'om_messaging::config_file' do
  # rspec-puppet writes a nil within Sensitive as an empty string, and anything else as it inspects.
  let(:undef_value) { Class.new { define_method(:inspect) { 'undef' } }.new }
  let(:title) { '/etc/nova/nova.conf' }

  context 'with keys to set and to remove' do
    let(:params) do
      { 'settings' => sensitive('DEFAULT' => { 'transport_url' => 'amqp://x/', 'rpc_backend' => undef_value }) }
    end

    it { is_expected.to compile.with_all_deps }
    # It follows links for the mode, whatever it is told.
    it { is_expected.to have_file_resource_count(0) }

    it 'makes the file before the first key' do
      is_expected.to contain_om_messaging_file(title).with_ensure('present').without_owner.without_group.without_mode
    end

    it 'sets a key without showing it' do
      is_expected.to contain_ini_setting("#{title} [DEFAULT] transport_url")
        .with_ensure('present').with_value(sensitive('amqp://x/')).with_show_diff(false)
        .with_section('DEFAULT').with_setting('transport_url').with_key_val_separator(' = ')
        .that_requires("Om_messaging_file[#{title}]")
    end

    it 'removes a key that is undef' do
      is_expected.to contain_ini_setting("#{title} [DEFAULT] rpc_backend").with_ensure('absent').without_value
    end
  end

  context 'with keys to remove only' do
    let(:params) { { 'settings' => sensitive('a' => { 'k' => undef_value }) } }

    it { is_expected.to have_om_messaging_file_resource_count(0) }
  end

  context 'with sections to remove with their last key' do
    let(:settings) { sensitive('a' => { 'k' => undef_value }, 'b' => { 'k' => 'v' }) }
    let(:params) { { 'settings' => settings, 'removable_sections' => ['a'] } }

    it { is_expected.to contain_ini_setting("#{title} [a] k").with_provider('om_messaging_section') }
    it { is_expected.to contain_ini_setting("#{title} [b] k").with_provider('om_messaging') }

    context 'in a file of PasteDeploy' do
      let(:params) { super().merge('style' => 'paste') }

      it { is_expected.to contain_ini_setting("#{title} [a] k").with_provider('om_messaging_paste') }
    end
  end

  context 'with an owner, a mode and a unit' do
    let(:pre_condition) { "service { 'nova-api': }" }
    let(:params) do
      { 'settings' => sensitive('a' => { 'k' => 'v' }), 'owner' => 'nova', 'mode' => '0600', 'units' => ['nova-api'] }
    end

    it { is_expected.to compile.with_all_deps }

    it 'sets them before the first key' do
      is_expected.to contain_om_messaging_file(title).with_ensure('present').with_owner('nova').with_mode('0600')
        .without_group.that_comes_before("Ini_setting[#{title} [a] k]")
    end

    it { is_expected.to contain_ini_setting("#{title} [a] k").that_notifies('Service[nova-api]') }
  end

  context 'with a mode and nothing to set' do
    let(:params) { { 'settings' => sensitive('a' => { 'k' => undef_value }), 'mode' => '0600' } }

    it { is_expected.to contain_om_messaging_file(title).with_mode('0600').without_ensure }
  end

  context 'with settings that are not Sensitive' do
    let(:params) { { 'settings' => { 'a' => { 'k' => 'v' } } } }

    it { is_expected.to compile.and_raise_error(%r{expects a Sensitive}) }
  end
end
